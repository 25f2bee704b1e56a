-- Adds a node to the presence of a session.
--
-- KEYS[1]  the session: a hash of incarnation (8 bytes) .. node -> serial (8 bytes, big endian); of a dead one "dead" -> 1
-- ARGV[1]  incarnation .. node
-- ARGV[2]  serial
--
-- Returns 1; 0 if the session is dead

if redis.call('HEXISTS', KEYS[1], 'dead') == 1 then
  return 0
end
local have = redis.call('HGET', KEYS[1], ARGV[1])
-- Serials count attaches, so a double holds them. Strings compare by the server's locale.
if not have or struct.unpack('>I8', have) < struct.unpack('>I8', ARGV[2]) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return 1
