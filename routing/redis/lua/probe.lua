-- Writes as the other scripts do, to find out whether the server lets it. Nothing is left behind.
--
-- KEYS[1]  a key that nothing else uses
--
-- Returns 1

redis.call('HSET', KEYS[1], 'field', 1)
redis.call('HDEL', KEYS[1], 'field')
redis.call('SET', KEYS[1], 1)
redis.call('DEL', KEYS[1])
return 1
