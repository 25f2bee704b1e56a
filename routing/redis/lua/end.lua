-- Makes a session dead, if it is attached nowhere but at nodes that are gone.
--
-- KEYS[1]  the session, as in attach.lua
-- ARGV[1]  1: wherever it is attached
-- ARGV[2]  how long it is remembered, in milliseconds
-- then for each entry that counts as absent
--          incarnation .. node
--          serial: later attaches there do count
--
-- Returns 1; 0 if it stays

local session = KEYS[1]
if redis.call('HEXISTS', session, 'dead') == 1 then
  return 1
end
if ARGV[1] ~= '1' then
  local gone = {}
  for i = 3, #ARGV, 2 do
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
return 1
