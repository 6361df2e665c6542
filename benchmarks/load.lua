-- wrk -s load.lua URL                        GETs of the URL.
-- wrk -s load.lua URL -- different              GETs of which each has a field that no other has.
-- wrk -s load.lua URL -- TOKENS SIZE         PUTs of SIZE bytes, with one session of the file TOKENS after another.
-- wrk -s load.lua URL -- TOKENS SIZE PAUSE   ... and a pause of so many ms on a connection before each.
--
-- A body is its session's token, over and over, so that a stored file tells whose it must be, to the last byte.
-- What wrk measured is printed as one line of JSON.

local threads = {}
created = 0

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  if #args == 0 then return end
  if args[1] == "different" then
    local number = 0
    function request()
      number = number + 1
      return wrk.format("GET", nil, { ["X-Request-Id"] = tostring(number) })
    end
    return
  end
  local requests, turn, size = {}, 0, tonumber(args[2])
  for token in io.lines(args[1]) do
    local body = token:rep(math.ceil(size / #token)):sub(1, size)
    local fields = { ["Cookie"] = "session=" .. token, ["Content-Type"] = "application/octet-stream" }
    requests[#requests + 1] = wrk.format("PUT", "/upload/file-" .. #requests .. ".bin", fields, body)
  end

  if args[3] then
    local pause = tonumber(args[3])
    function delay() return math.random(0, 2 * pause) end
  end

  -- Defined only here, because wrk takes a quicker path when there are none.
  function request()
    turn = turn % #requests + 1
    return requests[turn]
  end

  function response(status)
    if status == 201 then created = created + 1 end
  end
end

function done(summary, latency)
  local errors, total = summary.errors, 0
  for _, thread in ipairs(threads) do total = total + thread:get("created") end
  io.write(string.format(
    'JSON {"answers": %d, "created": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
    summary.requests, total, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
