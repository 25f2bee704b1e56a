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
-- ARGV[7]  how many IDs there are
-- ARGV[8]  for each bucket 5 bytes: which of the markers is its group's, from 0 on (1), and how
--          many IDs are of it (4)
-- then the markers as the caller knows them: with another one, a bucket may have lost what it held
-- then the IDs, bucket by bucket
-- then the ops, one for each ID or one for all
--          session (16 bytes) .. epoch (8), 0 to mint one .. expected binding (24), zeros for
--          nobody; one byte more if the caller's node knows the binding, which is not only a
--          client's word
--
-- Returns one string: the time (8 bytes), then 37 bytes for each ID that is listed: its place among
--          the IDs, from 0 on (4); status (1), as routing.BindStatus counts, or 0 if the marker is
--          another one; epoch (8), 0 if not bound; incumbent (24), zeros for nobody. An ID that is
--          not listed is bound, the time is its epoch, and nobody had it.
--
-- The cost of an ID is its strings, tables and commands. So the script makes no string for an ID
-- that nobody had bound. For a bucket with one ID, it makes no table besides Redis's answer.

local UNSOUND, BOUND, TAKEN, SUPERSEDED, INVALID, UNANSWERED = 0, 1, 2, 3, 5, 6
local NOBODY = string.rep('\0', 24)
local AT_ONCE = 1000 -- fields in one command

local call, try = redis.call, redis.pcall
local byte, sub, pack, unpack_bytes = string.byte, string.sub, struct.pack, struct.unpack

local function epoch_at(s, position)
  return (unpack_bytes('>I8', s, position))
end

local rebuilding, now = ARGV[1] == '1', tonumber(ARGV[2])
local max_clock, max_asserted, ahead = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local groups, total, layout = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local first_id = 9 + groups -- in ARGV
local first_op = first_id + total
local to_next_op = #ARGV > first_op and 1 or 0
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end
now = math.min(now, max_clock)
local packed_now = pack('>I8', now)

local latest -- the greatest epoch of the bucket at hand

-- the op at hand: its text, and what is in it
local op, session, asserted, expected, known
local minted -- the binding if it gets the time as its epoch

local function take(next_op)
  op, session, asserted = next_op, sub(next_op, 1, 16), epoch_at(next_op, 17)
  expected, known = sub(next_op, 25, 48), #next_op > 48
  minted = session .. packed_now
end

-- Says whether the epoch of a re-assert may be an honest one. Whoever wants a proof of epochs asks
-- for it here.
--
-- The bucket has stored all epochs that were ever minted. So a client's word alone takes no ID from
-- another session, unless data were lost. What the client's node knows itself does.
--
-- The clock may be wrong, now or when the epoch was minted, and after a loss the bucket knows no
-- better. So it is asked only if another session has to make way; who holds an ID that nobody else
-- has bound takes it back, whatever the clock says.
local function believable(displaces)
  if displaces and not known and not rebuilding then
    return false
  end
  return asserted <= math.max(displaces and now + ahead or max_asserted, latest)
end

-- Says how the op ends, with which epoch, and what the greatest epoch of the bucket is then.
local function judge(held, own)
  if asserted == 0 then
    if held ~= NOBODY and not own and held ~= expected then
      return TAKEN, 0, latest
    end
    -- Above all epochs of all IDs of the bucket: that keeps it above those of this ID, bound or not.
    local next = math.max(now, latest + 1)
    return BOUND, math.max(next, epoch_at(held, 17) + 1), next
  end
  local since = epoch_at(held, 17)
  if held ~= NOBODY and (asserted < since or asserted == since and not own) then
    return SUPERSEDED, 0, latest
  end
  if not believable(held ~= NOBODY and not own) then
    return INVALID, 0, latest
  end
  return BOUND, asserted, math.max(latest, math.min(asserted, max_clock))
end

local replies = {packed_now}

local function reply(i, status, epoch, incumbent)
  replies[#replies + 1] = pack('>I4BI8c24', i - first_id, status, epoch, incumbent)
end

local function reply_alike(first, n, status)
  for i = first, first + n - 1 do
    reply(i, status, 0, NOBODY)
  end
end

-- Does the op of the ID at ARGV[i]. held is what the bucket has for the ID, false for nothing.
-- Returns the binding to write, nil if there is none.
local function settle(i, held)
  local next_op = ARGV[first_op + (i - first_id) * to_next_op]
  if next_op ~= op then
    take(next_op)
  end
  if not held and asserted == 0 and latest < now then -- judge would say the same
    latest = now
    return minted
  end
  if not held or #held ~= 24 then
    held = NOBODY
  end
  local own = sub(held, 1, 16) == session
  local status, epoch
  status, epoch, latest = judge(held, own)
  if status == BOUND and own or status == INVALID then
    reply(i, status, epoch, NOBODY)
  else
    reply(i, status, epoch, held)
  end
  return status == BOUND and session .. pack('>I8', epoch) or nil
end

-- Returns the latest epoch of a bucket and what it has for n IDs, of which the first is at an
-- argument; false where it has nothing. Returns nil if it cannot be read.
local function read(bucket, first, n)
  local all
  for from = first, first + n - 1, AT_ONCE do
    local to = math.min(from + AT_ONCE, first + n) - 1
    local values = try('HMGET', bucket, '', unpack(ARGV, from, to))
    if values.err or values[1] and #values[1] ~= 8 then
      return nil
    end
    if not all then
      all = values
    else
      for k = 2, #values do
        all[#all + 1] = values[k]
      end
    end
  end
  return all
end

local function bind(bucket, first, n)
  local values = read(bucket, first, n)
  if not values then
    reply_alike(first, n, UNANSWERED)
    return
  end
  local stored = values[1] and epoch_at(values[1], 1) or 0
  latest = stored
  if n == 1 then
    local binding = settle(first, values[2])
    if binding and latest > stored then
      call('HSET', bucket, ARGV[first], binding, '', latest == now and packed_now or pack('>I8', latest))
    elseif binding then
      call('HSET', bucket, ARGV[first], binding)
    end
    return
  end
  local bound, changes = {}, {} -- by ID, which may occur again; and in the order of HSET
  for k = 1, n do
    local id = ARGV[first + k - 1]
    local binding = settle(first + k - 1, bound[id] or values[k + 1])
    if binding then
      bound[id] = binding
      changes[#changes + 1], changes[#changes + 2] = id, binding
    end
  end
  if latest > stored then
    changes[#changes + 1], changes[#changes + 2] = '', pack('>I8', latest)
  end
  for i = 1, #changes, 2 * AT_ONCE do
    call('HSET', bucket, unpack(changes, i, math.min(i + 2 * AT_ONCE - 1, #changes)))
  end
end

local sound = {}
for g = 1, groups do
  sound[g] = call('GET', KEYS[g]) == ARGV[8 + g]
end
local at = first_id
for b = 1, #KEYS - groups do
  local group, n1, n2, n3, n4 = byte(layout, 5 * b - 4, 5 * b)
  local n = ((n1 * 256 + n2) * 256 + n3) * 256 + n4
  if sound[group + 1] then
    bind(KEYS[groups + b], at, n)
  else
    reply_alike(at, n, UNSOUND)
  end
  at = at + n
end
return table.concat(replies)
