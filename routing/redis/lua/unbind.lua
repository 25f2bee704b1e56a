-- Takes exact bindings out of one bucket, or puts back what they had replaced, in order. The bucket keeps the greatest epoch it
-- has ever held.
--
-- KEYS[1]  the bucket
-- ARGV     for each ID
--          the ID
--          the binding to take out: session (16 bytes) .. epoch (8 bytes, big endian)
--          the binding to put in its place; empty: none
--
-- Returns one string, for each ID '1' if it was bound so, else '0'

local replies = {}
for i = 1, #ARGV, 3 do
  local id, binding, back = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local found = redis.call('HGET', KEYS[1], id) == binding
  if found and back == '' then
    redis.call('HDEL', KEYS[1], id)
  elseif found then
    redis.call('HSET', KEYS[1], id, back)
  end
  replies[#replies + 1] = found and '1' or '0'
end
return table.concat(replies)
