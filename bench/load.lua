-- What wrk asks for: the lines of a file, one after the other, round and round.
-- Argument: the file (path, tab, value of Range or nothing).

local requests = {}
local turn = 0

function init(args)
  for line in io.lines(args[1]) do
    local path, range = line:match("^([^\t]*)\t(.*)$")
    -- Not by wrk.format, which puts fields into a random order: clients send Host first
    -- (RFC 9110, 7.2), and servers may count on it.
    local asked = range ~= "" and "Range: " .. range .. "\r\n" or ""
    requests[#requests + 1] = "GET " .. path .. " HTTP/1.1\r\nHost: bench\r\n" .. asked .. "\r\n"
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
