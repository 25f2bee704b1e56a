-- Binds IDs of one bucket, each by the rules of routing.BindOp, in order.
--
-- KEYS[1]  the bucket: a hash of ID -> session (16 bytes) .. epoch (8 bytes, big endian), and of the empty string -> the
--          greatest epoch that the bucket has ever held, as far as it is believed (ARGV[4])
-- KEYS[2]  the marker of the bucket's group
-- ARGV[1]  the marker as the caller knows it: with another one, the bucket may have lost what it held
-- ARGV[2]  1: data were lost a short time ago, and are written again
-- ARGV[3]  the time in microseconds; 0: that of this server
-- ARGV[4]  the greatest epoch to be taken from a clock, or from a re-assert as the one to go on
--          minting from
-- ARGV[5]  the greatest epoch of a re-assert, unless the bucket has minted a greater one
-- ARGV[6]  how far ahead the epoch of a re-assert may lie if another session has to make way,
--          in microseconds
-- then for each ID
--          the ID
--          session (16 bytes) .. epoch (8), 0 to mint one .. expected binding (24), zeros for nobody;
--          one byte more if the caller's node knows the binding, which is not only a client's word
--
-- Returns an empty string if the marker is another one. Else one string, for each ID 33 bytes: status (1), as routing.BindStatus counts; epoch (8), 0 if not bound;
--          incumbent (24), zeros for nobody

local BOUND, TAKEN, SUPERSEDED, INVALID = 1, 2, 3, 5
local NOBODY = string.rep('\0', 24)

local function epoch_at(s, position)
  return (struct.unpack('>I8', s, position))
end

if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return ''
end
local bucket, rebuilding, now = KEYS[1], ARGV[2] == '1', tonumber(ARGV[3])
local max_clock, max_asserted, ahead = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
now = math.min(now, max_clock)
local latest = redis.call('HGET', bucket, '')
latest = latest and epoch_at(latest, 1) or 0
local stored = latest

-- Says whether the epoch of a re-assert may be an honest one. Whoever wants a proof of epochs asks
-- for it here.
--
-- The bucket has stored all epochs that were ever minted. So a client's word alone takes no ID from
-- another session, unless data were lost. What the client's node knows itself does.
--
-- The clock may be wrong, now or when the epoch was minted, and after a loss the bucket knows no
-- better. So it is asked only if another session has to make way; who holds an ID that nobody else
-- has bound takes it back, whatever the clock says.
local function believable(epoch, displaces, known)
  if displaces and not known and not rebuilding then
    return false
  end
  return epoch <= math.max(displaces and now + ahead or max_asserted, latest)
end

-- Says how an op ends, with which epoch, and what the greatest epoch of the bucket is then.
local function judge(held, own, epoch, expected, known)
  if epoch == 0 then
    if held ~= NOBODY and not own and held ~= expected then
      return TAKEN, 0, latest
    end
    -- Above all epochs of all IDs of the bucket: that keeps it above those of this ID, bound or not.
    local next = math.max(now, latest + 1)
    return BOUND, math.max(next, epoch_at(held, 17) + 1), next
  end
  local since = epoch_at(held, 17)
  if held ~= NOBODY and (epoch < since or epoch == since and not own) then
    return SUPERSEDED, 0, latest
  end
  if not believable(epoch, held ~= NOBODY and not own, known) then
    return INVALID, 0, latest
  end
  return BOUND, epoch, math.max(latest, math.min(epoch, max_clock))
end

local replies = {}
for i = 7, #ARGV, 2 do
  local id, op = ARGV[i], ARGV[i + 1]
  local session = string.sub(op, 1, 16)
  local held = redis.call('HGET', bucket, id) or NOBODY
  local own = string.sub(held, 1, 16) == session
  local incumbent = held
  local status, epoch
  status, epoch, latest = judge(held, own, epoch_at(op, 17), string.sub(op, 25, 48), #op > 48)
  if status == BOUND then
    redis.call('HSET', bucket, id, session .. struct.pack('>I8', epoch))
    if own then
      incumbent = NOBODY
    end
  elseif status == INVALID then
    incumbent = NOBODY
  end
  replies[#replies + 1] = string.char(status) .. struct.pack('>I8', epoch) .. incumbent
end
if latest > stored then
  redis.call('HSET', bucket, '', struct.pack('>I8', latest))
end
return table.concat(replies)
