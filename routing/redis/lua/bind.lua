-- Binds IDs of some buckets, each by the rules of routing.BindOp, in order.
--
-- KEYS     the markers of the groups of the buckets, then the buckets. On a Redis Cluster all are
--          of one group. A bucket is a hash of ID -> session (16 bytes) .. epoch (8 bytes, big
--          endian), and of the empty string -> the greatest epoch that the bucket has ever held, as
--          far as it is believed (ARGV[3])
-- ARGV[1]  1: data were lost a short time ago, and are written again
-- ARGV[2]  the time in microseconds; 0: that of this server
-- ARGV[3]  the greatest epoch to be taken from a clock, or from a re-assert as the one to go on
--          minting from
-- ARGV[4]  the greatest epoch of a re-assert, unless the bucket has minted a greater one
-- ARGV[5]  how far ahead the epoch of a re-assert may lie if another session has to make way,
--          in microseconds
-- ARGV[6]  how many markers there are
-- ARGV[7]  for each bucket 6 bytes: which of the markers is its group's (2), and how many IDs are
--          of it (4)
-- then the markers as the caller knows them: with another one, a bucket may have lost what it held
-- then for each ID
--          the ID
--          session (16 bytes) .. epoch (8), 0 to mint one .. expected binding (24), zeros for nobody;
--          one byte more if the caller's node knows the binding, which is not only a client's word
--
-- Returns one string, for each ID 33 bytes: status (1), as routing.BindStatus counts, or 0 if the
--          marker is another one; epoch (8), 0 if not bound; incumbent (24), zeros for nobody

local UNSOUND, BOUND, TAKEN, SUPERSEDED, INVALID, UNANSWERED = 0, 1, 2, 3, 5, 6
local NOBODY = string.rep('\0', 24)
local AT_ONCE = 1000 -- fields in one command

local function epoch_at(s, position)
  return (struct.unpack('>I8', s, position))
end

local rebuilding, now = ARGV[1] == '1', tonumber(ARGV[2])
local max_clock, max_asserted, ahead = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local groups, layout = tonumber(ARGV[6]), ARGV[7]
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
now = math.min(now, max_clock)

local latest -- the greatest epoch of the bucket at hand

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

local function reply(status, epoch, incumbent)
  replies[#replies + 1] = string.char(status) .. struct.pack('>I8', epoch) .. incumbent
end

-- Returns what a bucket has for n IDs, of which the first is at an argument: by ID, and its latest
-- epoch under the empty string. Returns nil if it cannot be read.
local function read(bucket, first, n)
  local has = {}
  for from = 0, n - 1, AT_ONCE do
    local fields = {''}
    for i = from, math.min(from + AT_ONCE, n) - 1 do
      fields[#fields + 1] = ARGV[first + 2 * i]
    end
    local values = redis.pcall('HMGET', bucket, unpack(fields))
    if values.err then
      return nil
    end
    for k, field in ipairs(fields) do
      has[field] = values[k]
    end
  end
  if has[''] and #has[''] ~= 8 then
    return nil
  end
  return has
end

local function bind(bucket, first, n)
  local has = read(bucket, first, n)
  if not has then
    for _ = 1, n do
      reply(UNANSWERED, 0, NOBODY)
    end
    return
  end
  latest = has[''] and epoch_at(has[''], 1) or 0
  local stored, changes = latest, {}
  for i = first, first + 2 * (n - 1), 2 do
    local id, op = ARGV[i], ARGV[i + 1]
    local session = string.sub(op, 1, 16)
    local held = has[id]
    if not held or #held ~= 24 then
      held = NOBODY
    end
    local own = string.sub(held, 1, 16) == session
    local incumbent = held
    local status, epoch
    status, epoch, latest = judge(held, own, epoch_at(op, 17), string.sub(op, 25, 48), #op > 48)
    if status == BOUND then
      has[id] = session .. struct.pack('>I8', epoch)
      changes[#changes + 1], changes[#changes + 2] = id, has[id]
      if own then
        incumbent = NOBODY
      end
    elseif status == INVALID then
      incumbent = NOBODY
    end
    reply(status, epoch, incumbent)
  end
  if latest > stored then
    changes[#changes + 1], changes[#changes + 2] = '', struct.pack('>I8', latest)
  end
  for i = 1, #changes, 2 * AT_ONCE do
    redis.call('HSET', bucket, unpack(changes, i, math.min(i + 2 * AT_ONCE - 1, #changes)))
  end
end

local sound = {}
for g = 1, groups do
  sound[g] = redis.call('GET', KEYS[g]) == ARGV[7 + g]
end
local next_op = 8 + groups -- in ARGV
for b = 1, #KEYS - groups do
  local group, n = struct.unpack('>I2I4', layout, 6 * b - 5)
  if not sound[group] then
    for _ = 1, n do
      reply(UNSOUND, 0, NOBODY)
    end
  else
    bind(KEYS[groups + b], next_op, n)
  end
  next_op = next_op + 2 * n
end
return table.concat(replies)
