"""What the server runs: one Lua script for each operation, so that each is atomic.

Times come and go as the text of their `repr`: a number of Lua would lose digits. They
become numbers only where one is compared with another.

The keys are those of `ConversationKeys`; where everything lies on one server, the
conversation's part of the index follows, and is kept in step by the same script. The
keys of users are named by what is stored, so that no caller could name them all: a
cluster, which asks for that, is never given the index.
"""

from __future__ import annotations

from hashlib import sha1

SCHEMA_VERSION = 2

FIELDS = (
    *("version", "first", "session_start", "created_at", "updated_at"),
    *("expires_at", "user_id", "snapshot"),
)
"""The fields of the hash, in the order in which `READ` returns them."""


class Script:
    """A script and the name that the server knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode()).hexdigest()  # noqa: S324 (Redis' own name)
        # the first two words of the command that runs it, as they are sent
        self.head = b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % self.sha.encode()


_EXPIRED = """
local function expired(at, now)
  return at and at ~= '' and tonumber(at) <= tonumber(now)
end
"""

# Whose a conversation is, by the digest of the user's id; '' is nobody's.
_SET_USER = """
local function set_user(index, sender, digest)
  local users, base = index .. ':users', string.gsub(index, '%d+}$', 'user:')
  local old = redis.call('HGET', users, sender)
  if old == digest then return end
  if old then redis.call('ZREM', base .. old .. '}', sender) end
  if digest ~= '' then
    redis.call('HSET', users, sender, digest)
    redis.call('ZADD', base .. digest .. '}', 0, sender)
  elseif old then
    redis.call('HDEL', users, sender)
  end
end
"""

# 1 stored, 0 refused, or Rasa's value and its time to live: the caller counts its
# events and calls again with the hash of what it counted.
APPEND = Script(
    _EXPIRED
    + _SET_USER
    + """
local head, rows, rasa, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local expected, version, start, snapshot = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now, expires_at, ttl = ARGV[5], ARGV[6], ARGV[7]
local has_user, user, asked, created = ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local rasa_hash, drop_rasa, sender = ARGV[12], ARGV[13], ARGV[14]
local stamp, first, first_row = ARGV[15], ARGV[16], 17
local h = redis.call('HMGET', head, 'version', 'created_at', 'expires_at')
local begins = not h[1]
if begins then
  local value = redis.call('GET', rasa)
  if value then
    if rasa_hash == '' then
      return {value, redis.call('PTTL', rasa)}
    end
    if redis.sha1hex(value) ~= rasa_hash then return 0 end
  elseif rasa_hash ~= '' or expected ~= '0' then
    return 0
  end
elseif rasa_hash ~= '' then
  return 0
elseif expired(h[3], now) then
  if expected ~= '0' then return 0 end
  begins = true
elseif h[1] ~= expected or (asked ~= '' and h[2] ~= asked) then
  return 0
end
if begins then
  redis.call('DEL', head, rows)
  redis.call('HSET', head, 'first', first, 'created_at', created)
  if index then redis.call('ZADD', index, 0, sender) end
end
for i = first_row, #ARGV, 1000 do
  redis.call('RPUSH', rows, unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
redis.call('HSET', head, 'version', version, 'session_start', start,
  'snapshot', snapshot, 'updated_at', stamp, 'expires_at', expires_at)
if has_user == '1' then redis.call('HSET', head, 'user_id', user) end
if index and has_user == '1' then
  set_user(index, sender, redis.sha1hex(user))
elseif index and begins then
  set_user(index, sender, '')
end
if drop_rasa == '1' then redis.call('DEL', rasa) end
if ttl == '' then
  redis.call('PERSIST', head)
  redis.call('PERSIST', rows)
else
  redis.call('PEXPIRE', head, ttl)
  redis.call('PEXPIRE', rows, ttl)
  redis.call('PEXPIRE', rasa, ttl)
end
return 1
"""
)

# The header, the first position and the rows, or how many there are if they are many;
# or Rasa's value and its time to live. Lua takes over each row and hands it out again:
# 5,000 take it 5 ms, in which the server does nothing else, and a plain LRANGE 2 ms.
READ = Script(
    _EXPIRED
    + """
local now, start, last, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local most = tonumber(ARGV[5])
local h = redis.call('HMGET', KEYS[1], 'version', 'first', 'session_start',
  'created_at', 'updated_at', 'expires_at', 'user_id', 'snapshot')
if not h[1] then
  local value = redis.call('GET', KEYS[3])
  if not value then return false end
  return {value, redis.call('PTTL', KEYS[3])}
end
if expired(h[6], now) then return false end
local version, first = tonumber(h[1]), tonumber(h[2])
local from = tonumber(start == '' and h[3] or start)
if last ~= '' then from = math.max(from, version - tonumber(last)) end
from = math.min(math.max(from, first), version)
local found = {}
if from < version then
  local count = version - from
  if limit ~= '' then count = math.min(count, tonumber(limit)) end
  if count > most then return {h, from, count} end
  found = redis.call('LRANGE', KEYS[2], from - first, from - first + count - 1)
end
return {h, from, found}
"""
)

# 1 something was erased, 0 nothing; or Rasa's value, which alone was there. Where a
# version is asked for that value stays: the caller counts, and calls again with its
# hash.
DELETE = Script(
    _EXPIRED
    + _SET_USER
    + """
local h = redis.call('HMGET', KEYS[1], 'version', 'expires_at')
local value = not h[1] and redis.call('GET', KEYS[3])
local version, rasa_hash = ARGV[3], ARGV[4]
if version ~= '' then
  if h[1] then
    if h[1] ~= version then return 0 end
  elseif not value then
    return 0
  elseif rasa_hash == '' then
    return {value}
  elseif redis.sha1hex(value) ~= rasa_hash then
    return 0
  end
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
if KEYS[4] then
  redis.call('ZREM', KEYS[4], ARGV[2])
  set_user(KEYS[4], ARGV[2], '')
end
if value then return {value} end
return (h[1] and not expired(h[2], ARGV[1])) and 1 or 0
"""
)

# As DELETE, but where Rasa's value alone is there nothing is changed.
CUT = Script(
    _EXPIRED
    + _SET_USER
    + """
local before = tonumber(ARGV[2])
local h = redis.call('HMGET', KEYS[1], 'version', 'first', 'session_start',
  'expires_at')
if not h[1] then
  local value = redis.call('GET', KEYS[3])
  return value and {value, redis.call('PTTL', KEYS[3])} or 0
end
if expired(h[4], ARGV[1]) then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  if KEYS[4] then
    redis.call('ZREM', KEYS[4], ARGV[3])
    set_user(KEYS[4], ARGV[3], '')
  end
  return 0
end
local first = tonumber(h[2])
if before <= first or before > tonumber(h[3]) then return 0 end
redis.call('LTRIM', KEYS[2], before - first, -1)
redis.call('HSET', KEYS[1], 'first', ARGV[2])
redis.call('DEL', KEYS[3])
return 1
"""
)

# 1 rewritten, 0 refused; or Rasa's value, which alone was there
REWRITE = Script(
    _EXPIRED
    + _SET_USER
    + """
local head, rows, rasa = KEYS[1], KEYS[2], KEYS[3]
local h = redis.call('HMGET', head, 'version', 'first', 'created_at', 'expires_at')
if not h[1] then
  local value = redis.call('GET', rasa)
  return value and {value, redis.call('PTTL', rasa)} or 0
end
if expired(h[4], ARGV[1]) or h[1] ~= ARGV[2] or h[2] ~= ARGV[3] or h[3] ~= ARGV[4] then
  return 0
end
if #ARGV < 8 then return 1 end
local ttl = redis.call('PTTL', rows)
redis.call('DEL', rows, rasa)
for i = 10, #ARGV, 1000 do
  redis.call('RPUSH', rows, unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
if ttl > 0 then redis.call('PEXPIRE', rows, ttl) end
redis.call('HSET', head, 'created_at', ARGV[5], 'snapshot', ARGV[6])
if ARGV[7] == '1' then
  redis.call('HSET', head, 'user_id', ARGV[8])
else
  redis.call('HDEL', head, 'user_id')
end
if KEYS[4] then
  set_user(KEYS[4], ARGV[9], ARGV[7] == '1' and redis.sha1hex(ARGV[8]) or '')
end
return 1
"""
)

FORGET = Script(
    _SET_USER
    + """
if redis.call('EXISTS', KEYS[1], KEYS[3]) > 0 then return 0 end
set_user(KEYS[4], ARGV[1], '')
return redis.call('ZREM', KEYS[4], ARGV[1])
"""
)
"""Remove an id from the index of one server, if nothing is stored under it."""

INDEX_ADD = Script(
    """
for i = 1, #ARGV do
  redis.call('ZADD', KEYS[1], 0, ARGV[i])
  redis.call('ZREM', KEYS[2], ARGV[i])
end
return 1
"""
)
"""Add ids to a cluster's index; a removal that is under way is called off."""

INDEX_REMOVE = Script(
    """
if redis.call('ZSCORE', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
if KEYS[3] then redis.call('HDEL', KEYS[3], ARGV[1]) end
return redis.call('ZREM', KEYS[1], ARGV[1])
"""
)
"""End a removal that was announced with a number, unless it was called off."""

FORGET_USER = Script(
    """
local user = redis.call('HGET', KEYS[1], 'user_id')
if user and redis.sha1hex(user) == ARGV[2] then return 0 end
return redis.call('ZREM', KEYS[2], ARGV[1])
"""
)
"""Remove an id from those of a user, on one server, unless it is that user's."""
