-- Takes a node out of the presence of a session, unless it has attached later.
--
-- KEYS[1]  the session, as in attach.lua
-- ARGV[1]  incarnation .. node
-- ARGV[2]  serial
--
-- Returns how many nodes are left

if redis.call('HEXISTS', KEYS[1], 'dead') == 1 then
  return 0
end
local have = redis.call('HGET', KEYS[1], ARGV[1])
if have and struct.unpack('>I8', have) <= struct.unpack('>I8', ARGV[2]) then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return redis.call('HLEN', KEYS[1])
