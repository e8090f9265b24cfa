-- Refuses JSON bodies whose fields the contract does not know: the transcoder, which comes next, would drop them, and a
-- misspelt maxCost would cost money without a word.
--
-- pagemesh_cli/stack/edge_fields.py writes two tables in front of strict_json_words.lua and this, out of the contracts:
--
--   TYPES   each message that a body can hold. `fields` has every spelling of a name and the type of its value: a number
--           is an index into TYPES, SCALAR has no fields, FREE is google.protobuf.Struct and its like. `other` has the
--           JSON name of those that are spelt in two ways. A map has `values`, the type of each of them, instead.
--   PATHS   a tree over the segments of REST paths, "*" for any, as the transcoder has it; `methods` has, for an HTTP
--           method, the type of the request and of the body, which a file's has not; the field that the body is
--           bound to where it is not the whole request; and `bound`, what the path itself sets: the field, the segments
--           that are its value, its name in a body, and what it may be called by those who do not know that.
--
-- A body is read once, from its first byte to its last, with a stack that has a bound. It is held back for that long, no
-- longer than the edge's limit for bodies allows. What is no JSON is refused as well: the transcoder forgives names
-- without quotes and others that this reader would not find. Values are left to the transcoder.

local MAX_DEPTH = 100  -- the transcoder's
local MAX_VIOLATIONS = 10
-- Names, objects and lists of a body. They are what costs a worker its time, and everybody whose connection it has.
-- No method needs so many: the largest batch of jobs is ten thousand texts in one list, and a JSON Schema has 32 KiB.
local MAX_PARTS = 20000
local TOO_MANY = format("it has more than %d names, objects and lists", MAX_PARTS)

-- What may come next.
local VALUE, FIRST_VALUE, NAME, FIRST_NAME, MORE, END = 1, 2, 3, 4, 5, 6

local ESCAPES = {
  [34] = '"', [47] = "/", [92] = "\\", [98] = "\b", [102] = "\f", [110] = "\n", [114] = "\r", [116] = "\t",
}

-- The place of the quote that ends a string that begins at `at`, and whether there are escapes before it.
local function end_of_string(text, at)
  local escaped = false
  local c = byte(text, at)
  while c do
    if c == 34 then
      return at, escaped
    elseif c == 92 then
      escaped = true
      at = at + 1
    end
    at = at + 1
    c = byte(text, at)
  end
  return nil
end

local function utf8(code)
  if code < 0x80 then
    return char(code)
  elseif code < 0x800 then
    return char(0xC0 + floor(code / 0x40), 0x80 + code % 0x40)
  elseif code < 0x10000 then
    return char(0xE0 + floor(code / 0x1000), 0x80 + floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
  end
  return char(
    0xF0 + floor(code / 0x40000),
    0x80 + floor(code / 0x1000) % 0x40,
    0x80 + floor(code / 0x40) % 0x40,
    0x80 + code % 0x40
  )
end

-- What a string with escapes says (RFC 8259, section 7); nil where an escape is none.
local function unescaped(text)
  local parts, at = {}, 1
  while true do
    local slash = find(text, "\\", at, true)
    if not slash then
      parts[#parts + 1] = sub(text, at)
      return concat(parts)
    end
    parts[#parts + 1] = sub(text, at, slash - 1)
    local kind = byte(text, slash + 1)
    if kind == 117 then
      local digits = sub(text, slash + 2, slash + 5)
      if not find(digits, "^%x%x%x%x$") then
        return nil
      end
      local code = tonumber(digits, 16)
      at = slash + 6
      if code >= 0xD800 and code < 0xDC00 then
        local low = sub(text, at, at + 5)
        if not find(low, "^\\u[dD][c-fC-F]%x%x$") then
          return nil
        end
        code = 0x10000 + (code - 0xD800) * 0x400 + tonumber(sub(low, 3), 16) - 0xDC00
        at = at + 6
      elseif code >= 0xDC00 and code < 0xE000 then
        return nil  -- half a character
      end
      parts[#parts + 1] = utf8(code)
    elseif ESCAPES[kind] then
      parts[#parts + 1] = ESCAPES[kind]
      at = slash + 2
    else
      return nil
    end
  end
end

-- Goes through a method's body and answers what is wrong with its names, or nil where it is no JSON object, and where.
-- `in_path` is what the path says of the field that it is bound to.
local function check(text, method, in_path)
  local wrong, depth, at, parts = {}, 0, 1, 0
  local is_object, types, seen, steps = {}, {}, {}, {}
  local next_type, expected, outermost = method.body, VALUE, nil

  local function path(last)
    local parts = { method.field or "" }
    for level = 1, last do
      local step = steps[level]
      if not is_object[level] then
        parts[#parts + 1] = "[" .. step .. "]"
      elseif types[level] > 0 and TYPES[types[level]].fields then
        parts[#parts + 1] = "." .. step
      else
        parts[#parts + 1] = '["' .. step .. '"]'
      end
    end
    return (gsub(concat(parts), "^%.", ""))
  end

  local function complain(reason, description)
    wrong[#wrong + 1] = { reason = reason, field = path(depth), description = description }
  end

  -- Notes a name of the innermost object; answers the type of its value.
  local function named(name)
    steps[depth] = name
    local kind = types[depth] > 0 and TYPES[types[depth]] or nil
    local same, inner = name, FREE
    if kind and kind.fields then
      inner = kind.fields[name]
      same = kind.other[name] or name
      if not inner then
        inner = FREE
        complain("UNKNOWN_FIELD", unknown(kind, name, TYPES[method.body], method))
      end
    elseif kind then
      inner = kind.values
    end
    if seen[depth][same] and #wrong < MAX_VIOLATIONS then
      complain("DUPLICATE_FIELD", "it is there twice")
    end
    seen[depth][same] = true
    if depth == 1 then
      outermost = same
    end
    return inner
  end

  local c = byte(text, at)
  -- What is refused already is not read to its end: a body may hold a hundred thousand wrong names.
  while c and #wrong < MAX_VIOLATIONS do
    if c == 32 or c == 10 or c == 13 or c == 9 then
      at = at + 1
    elseif c == 34 and (expected == NAME or expected == FIRST_NAME) then
      local stop, escaped = end_of_string(text, at + 1)
      local name = stop and sub(text, at + 1, stop - 1)
      if escaped and name then
        name = unescaped(name)
      end
      at = stop and find(text, "[^ \t\r\n]", stop + 1)
      if not name or not at or byte(text, at) ~= 58 then
        return nil, at or #text
      end
      parts = parts + 1
      if parts > MAX_PARTS then
        return nil, at, TOO_MANY
      end
      next_type = named(name)
      expected = VALUE
      at = at + 1
    elseif c == 44 and expected == MORE then
      expected = is_object[depth] and NAME or VALUE
      if not is_object[depth] then
        steps[depth] = steps[depth] + 1
        next_type = types[depth]
      end
      at = at + 1
    elseif c == 125 and is_object[depth] and (expected == MORE or expected == FIRST_NAME) then
      depth = depth - 1
      expected = depth == 0 and END or MORE
      at = at + 1
    elseif c == 93 and depth > 0 and not is_object[depth] and (expected == MORE or expected == FIRST_VALUE) then
      depth = depth - 1
      expected = depth == 0 and END or MORE
      at = at + 1
    elseif expected ~= VALUE and expected ~= FIRST_VALUE then
      return nil, at
    elseif depth == 0 and c ~= 123 then
      return nil, at, "it has to begin with {"
    elseif c == 123 or c == 91 then
      if depth == MAX_DEPTH then
        return nil, at, "it is nested too deep"
      end
      parts = parts + 1
      if parts > MAX_PARTS then
        return nil, at, TOO_MANY
      end
      depth = depth + 1
      is_object[depth] = c == 123
      types[depth] = next_type
      seen[depth] = c == 123 and {} or nil
      steps[depth] = 0
      expected = c == 123 and FIRST_NAME or FIRST_VALUE
      at = at + 1
    else
      if c == 34 then
        local stop, escaped = end_of_string(text, at + 1)
        if not stop then
          return nil, #text
        end
        if depth == 1 and in_path and outermost == method.bound.in_body then
          local value = sub(text, at + 1, stop - 1)
          if (escaped and unescaped(value) or value) ~= in_path then
            complain("DUPLICATE_FIELD", SAID_BY_PATH)
          end
        end
        at = stop + 1
      else
        -- A number, true, false, null: which of them, and whether well written, is the transcoder's to say.
        local from = at
        while c and (c >= 48 and c <= 57 or c >= 97 and c <= 122 or c >= 65 and c <= 90 or c == 43 or c == 45 or c == 46) do
          at = at + 1
          c = byte(text, at)
        end
        if at == from then
          return nil, at
        end
      end
      expected = depth == 0 and END or MORE
    end
    c = byte(text, at)
  end
  if expected ~= END and #wrong < MAX_VIOLATIONS then
    return nil, #text
  end
  return wrong
end

local function unquoted(text)
  return (gsub(text, "%%(%x%x)", function(hex)
    return char(tonumber(hex, 16))
  end))
end

-- What is wrong with the names of an address's parameters: dotted paths of fields of the request. One that the path
-- sets already is refused: the transcoder would take the parameter, and another document than the path's.
local function check_query(query, method)
  local wrong, root = {}, TYPES[method.request]
  for parameter in query:gmatch("[^&]+") do
    local name = unquoted((gsub(sub(parameter, 1, (find(parameter, "=", 1, true) or 0) - 1), "+", " ")))
    local kind, reason, description, same = root, nil, nil, {}
    for step in name:gmatch("[^.]+") do
      local inner = kind and kind.fields and kind.fields[step]
      if kind and kind.fields and not inner then
        reason, description = "UNKNOWN_FIELD", unknown(kind, step, root, method)
        break
      end
      same[#same + 1] = kind and kind.other and kind.other[step] or step
      kind = inner and TYPES[inner]
    end
    if not reason and method.bound and concat(same, ".") == method.bound.field then
      reason, description = "DUPLICATE_FIELD", SAID_BY_PATH
    end
    if reason then
      wrong[#wrong + 1] = { reason = reason, field = name, description = description }
    end
    if #wrong == MAX_VIOLATIONS then
      break
    end
  end
  return wrong
end

local function descend(node, parts, index, method)
  if index > #parts then
    return node.methods and node.methods[method]
  end
  local part = parts[index]
  local literal, any = node[part], node["*"]
  -- `methods` is not a segment of any path; the table's writer refuses it.
  local found = literal and part ~= "methods" and part ~= "*" and descend(literal, parts, index + 1, method)
  return found or any and descend(any, parts, index + 1, method)
end

local function find_path(method, path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    parts[#parts + 1] = part
    if #parts > 16 then
      return nil
    end
  end
  local found = descend(PATHS, parts, 1, method)
  local bound = found and found.bound
  return found, bound and unquoted(concat(parts, "/", bound.from, bound.to))
end

-- What a request is transcoded to, and what the path says of the field that is bound to it; nil where it is not
-- transcoded. The transcoder takes a verb for one more segment, and forgives slashes too many.
local function method_of(method, path)
  path = gsub(path, "[?#].*$", "")
  local found, in_path = find_path(method, (gsub(path, ":([^:/]*)$", "/%1")))
  if found then
    return found, in_path
  end
  return find_path(method, path)
end

local function refuse(handle)
  local headers = handle:headers()
  local content_type = headers:get("content-type") or ""
  if content_type == "application/grpc" or sub(content_type, 1, 17) == "application/grpc+" then
    return
  end
  local path = headers:get(":path") or ""
  local method, in_path = method_of(headers:get(":method") or "", path)
  if not method then
    return
  end
  local query = find(path, "?", 1, true)
  local wrong, at, why = check_query(query and sub(path, query + 1) or "", method)
  if #wrong == 0 and method.body then
    local body = handle:body()
    local size = body and body:length() or 0
    if size > 0 then
      wrong, at, why = check(body:getBytes(0, size), method, in_path)
    end
  end
  if not wrong then
    handle:respond({ [":status"] = "400" }, format("The body is not a JSON object: see byte %d%s.", at, why and ", " .. why or ""))
  elseif #wrong > 0 then
    -- No client can set this header; edge_replies.py passes on what is said with it. (Those from before the body came
    -- are no longer to be touched.)
    handle:headers():replace("x-pagemesh-refused", wrong[1].reason)
    handle:respond({ [":status"] = "400" }, status(wrong))
  end
end

function envoy_on_request(handle)
  -- After an error in a script Envoy goes on with the request.
  local ran, why = pcall(refuse, handle)
  if not ran then
    handle:logErr("strict_json.lua: " .. tostring(why))
    handle:respond({ [":status"] = "500" }, "")
  end
end
