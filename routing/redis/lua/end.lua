-- Makes a session dead, if it is attached nowhere but at nodes that are gone.
--
-- KEYS[1]  the session, as in attach.lua: the name of the marker .. ":s:" .. its ID in hex
-- KEYS[2]  the marker of the session's group
-- KEYS[3]  the sessions of the group that were ended last: a ring, a hash of 1, 2, … -> session
--          (16 bytes), and n -> where the latest stands
-- ARGV[1]  1: wherever it is attached
-- ARGV[2]  how long it is remembered, in milliseconds
-- ARGV[3]  how many dead sessions of the group are remembered
-- ARGV[4]  the session (16 bytes)
-- ARGV[5]  the marker as the caller knows it: with another one, the presence may be lost
-- then for each entry that counts as absent
--          incarnation .. node
--          serial: later attaches there do count
--
-- Returns 1; 0 if it stays; -1 if the marker is another one

local session, ring = KEYS[1], KEYS[3]

local function is_dead(key)
  return redis.call('HEXISTS', key, 'dead') == 1
end

local function hex(s)
  return (string.gsub(s, '.', function(c) return string.format('%02x', string.byte(c)) end))
end

if is_dead(session) then
  return 1
end
if ARGV[1] ~= '1' then
  if redis.call('GET', KEYS[2]) ~= ARGV[5] then
    return -1
  end
  local gone = {}
  for i = 6, #ARGV, 2 do
    gone[ARGV[i]] = struct.unpack('>I8', ARGV[i + 1])
  end
  local nodes = redis.call('HGETALL', session)
  for i = 1, #nodes, 2 do
    local serial = gone[nodes[i]]
    if not serial or struct.unpack('>I8', nodes[i + 1]) > serial then
      return 0
    end
  end
end
redis.call('DEL', session)
redis.call('HSET', session, 'dead', 1)
redis.call('PEXPIRE', session, ARGV[2])

-- Clients that come and go would fill the memory, so the ring forgets whoever it has no room for.
local n = (redis.call('HGET', ring, 'n') or 0) % ARGV[3] + 1
local oldest = redis.call('HGET', ring, n)
if oldest then
  local key = KEYS[2] .. ':s:' .. hex(oldest)
  if is_dead(key) then
    redis.call('DEL', key)
  end
end
redis.call('HSET', ring, n, ARGV[4], 'n', n)
redis.call('PEXPIRE', ring, ARGV[2])
return 1
