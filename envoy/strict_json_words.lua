-- What is said of a name that is wrong: strict_json.lua, which stands behind this in the file that Envoy reads, finds it.

local byte, char, sub, gsub, find, format = string.byte, string.char, string.sub, string.gsub, string.find, string.format
local lower, concat, floor, min = string.lower, table.concat, math.floor, math.min

local MAX_SHOWN_BYTES = 200
local MAX_NAME_BYTES = 64  -- longer ones are not compared with those that are known
local SAID_BY_PATH = "the path says it already; leave it out here"

-- How many letters are wrong, missing, too many or changed with their neighbour (optimal string alignment).
local function distance(a, b)
  local before, last, row = {}, {}, {}
  for j = 0, #b do
    last[j] = j
  end
  for i = 1, #a do
    row[0] = i
    for j = 1, #b do
      local wrong = byte(a, i) == byte(b, j) and 0 or 1
      local best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + wrong)
      if i > 1 and j > 1 and byte(a, i) == byte(b, j - 1) and byte(a, i - 1) == byte(b, j) then
        best = min(best, before[j - 2] + 1)
      end
      row[j] = best
    end
    before, last, row = last, row, before
  end
  return last[#b]
end

-- The name of `kind` that is nearest to this one and spelt in the same style, and how far it is; nil where none is near:
-- no more than a third of its letters are wrong.
local function nearest(kind, name)
  local snake = find(name, "_", 1, true) ~= nil
  local plain = gsub(lower(name), "_", "")
  local best, least = nil, 1 + floor(#plain / 3)
  for known in pairs(kind.fields) do
    if not find(known, snake and "%u" or "_") then
      local far = distance(plain, (gsub(lower(known), "_", "")))
      if far < least or far == least and best and known < best then
        best, least = known, far
      end
    end
  end
  return best, least
end

-- Where a name belongs that has a place of its own beside the outermost message: in the path, or in the address where
-- the body is bound to one field of the request, or nowhere, because it is that field.
local function elsewhere(name, method)
  if name == method.field then
    return "the body is this field already; leave this level out"
  elseif method.bound and method.bound.called[(gsub(lower(name), "_", ""))] then
    return SAID_BY_PATH
  elseif method.field and TYPES[method.request].fields[name] then
    return "it belongs into the address, as ?" .. name .. "=..."
  end
  return nil
end

-- What is said of a name that `kind` does not have: where it belongs, or what may have been meant, there, a level below
-- or in the outermost message, `root`.
local function unknown(kind, name, root, method)
  local said = kind.name .. " has no such field"
  if #name > MAX_NAME_BYTES then
    return said
  end
  local place = kind == root and elsewhere(name, method)
  if place then
    return said .. "; " .. place
  end
  local best, least = nearest(kind, name)
  if not best then
    for outer, inner in pairs(kind.fields) do
      local below = inner > 0 and TYPES[inner]
      if below and below.fields and not find(outer, "_", 1, true) then
        local near, far = nearest(below, name)
        if near and (not best or far < least or far == least and outer .. "." .. near < best) then
          best, least = outer .. "." .. near, far
        end
      end
    end
  end
  if not best and kind ~= root then
    local near = nearest(root, name)
    best = near and near .. " of " .. root.name
  end
  return best and said .. "; did you mean " .. best .. "?" or said
end

local function is_utf8(text)
  local at = 1
  while true do
    at = find(text, "[\128-\255]", at)
    if not at then
      return true
    end
    local c = byte(text, at)
    local more = c >= 0xC2 and c <= 0xDF and 1 or c >= 0xE0 and c <= 0xEF and 2 or c >= 0xF0 and c <= 0xF4 and 3
    if not more or not find(text, "^" .. ("[\128-\191]"):rep(more), at + 1) then
      return false
    end
    -- Not the shortest form, half a surrogate pair, beyond the last character (RFC 3629, section 4).
    local second = byte(text, at + 1)
    if c == 0xE0 and second < 0xA0 or c == 0xED and second > 0x9F or c == 0xF0 and second < 0x90
      or c == 0xF4 and second > 0x8F then
      return false
    end
    at = at + 1 + more
  end
end

-- As a string of JSON; cut where it is long.
local function quoted(text)
  if #text > MAX_SHOWN_BYTES then
    text = gsub(sub(text, 1, MAX_SHOWN_BYTES), "[\192-\255]?[\128-\191]*$", "") .. "..."
  end
  if not is_utf8(text) then
    text = gsub(text, "[\128-\255]", "?")
  end
  return '"' .. gsub(text, '[%c"\\\127]', function(c)
    return format("\\u%04x", byte(c))
  end) .. '"'
end

-- google.rpc.Status, as the services' transcoded errors show it.
local function status(wrong)
  local violations = {}
  for index, one in ipairs(wrong) do
    violations[index] = '{"field":' .. quoted(one.field) .. ',"description":' .. quoted(one.description) .. "}"
  end
  local first = quoted(wrong[1].field)
  return '{"code":3,"message":' .. sub(first, 1, -2) .. ": " .. sub(quoted(wrong[1].description), 2)
    .. ',"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"' .. wrong[1].reason
    .. '","domain":"pagemesh","metadata":{}},{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":['
    .. concat(violations, ",") .. "]}]}"
end

