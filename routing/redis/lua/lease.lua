-- Takes or renews a lease.
--
-- KEYS[1]  the lease: "holder time", the server's time in microseconds when it was taken or renewed
-- ARGV[1]  who asks
-- ARGV[2]  for how long, in milliseconds
--
-- Returns 1 if the caller has it now, else 0

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local holder, since = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+)$')
-- A lease from the future was taken before the clock was set back. Redis would keep it until the
-- clock is there again.
if holder and holder ~= ARGV[1] and tonumber(since) <= now then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. string.format(' %.0f', now), 'PX', ARGV[2])
return 1
