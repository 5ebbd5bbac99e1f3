-- What wrk asks for: one clip, whole, or aligned ranges of it at random offsets.
-- Arguments: size of a range in bytes (0: the whole clip), length of the clip, a seed.

local PREPARED = 4096
local requests = {}
local turn = 0

function init(args)
  local block, length = tonumber(args[1]), tonumber(args[2])
  math.randomseed(tonumber(args[3]))
  for i = 1, (block == 0 and 1 or PREPARED) do
    if block > 0 then
      local first = math.random(0, math.floor(length / block) - 1) * block
      wrk.headers["Range"] = string.format("bytes=%d-%d", first, first + block - 1)
    end
    requests[i] = wrk.format("GET")
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "micros": %d, "bytes": %d, "p50": %d, "p99": %d, "errors": %d}\n',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
