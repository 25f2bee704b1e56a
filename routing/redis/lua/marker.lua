-- Replaces the marker of a group of keys, if it is still the one that the caller has seen.
--
-- KEYS[1]  the marker: "name created run layout", where created is the server's time in microseconds and run its run ID
-- ARGV[1]  the marker that is to be replaced, empty for none; "keep": leave it as it is
-- ARGV[2]  the name of the new one: random
-- ARGV[3]  the layout of the buckets
--
-- Returns the marker that stands now, and the server's time in microseconds

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
local have = redis.call('GET', KEYS[1]) or ''
if have == ARGV[1] then
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  have = table.concat({ARGV[2], now, run, ARGV[3]}, ' ')
  redis.call('SET', KEYS[1], have)
end
return {have, now}
