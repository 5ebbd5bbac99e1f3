// The demo's page: plays clips, and shows how each came in and what the proxy said of each view.
//
// A view is one run of the player under an address of its own. The page never asks for a clip by
// itself: only playing turns a miss into a hit.

const EVERY = 300; // milliseconds between two looks at what happened
const SHOWN = 2; // views of the chosen clip that are shown
const WAYS = ["view", "webhook", "sweep"];

const rows = new Map(); // by request id: the row, and what it showed last
let chosen = null; // request id of the clip in the player
let played = false; // whether the player has begun the address that it has
let seen = "";
let latest = [];

const byId = (id) => document.getElementById(id);
const player = byId("player");
const video = player.querySelector("video");
const again = player.querySelector("button");
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const ordinal = (number) => ["First", "Second", "Third", "Fourth", "Fifth"][number - 1] ?? `${number}th`;

/**
 * Point the player at the clip under an address that no cache of the browser has seen.
 * No load(): that would overrule preload="none" and ask for the clip before anyone plays it.
 */
function prepare(clip) {
  played = false;
  video.src = `${clip.url}?view=${Math.random().toString(36).slice(2, 10)}`;
}

/** Put a clip into the player. */
function choose(clip) {
  rows.get(chosen)?.row.classList.remove("chosen");
  chosen = clip.id;
  rows.get(chosen).row.classList.add("chosen");
  player.querySelector("h2").textContent = clip.prompt;
  player.querySelector(".model-name").textContent = clip.model;
  const link = player.querySelector("a");
  link.textContent = link.href = clip.url;
  video.poster = `${clip.name}.jpg`;
  video.setAttribute("aria-label", clip.prompt);
  prepare(clip);
}

const chosenClip = () => latest.find((clip) => clip.id === chosen);
const play = () => video.play().catch(() => {}); // another clip was chosen before this one began

video.addEventListener("play", () => {
  played = true;
  look();
});
// The player's own button then begins another view too, not only a repeat from memory.
video.addEventListener("ended", () => prepare(chosenClip()));
again.addEventListener("click", () => {
  if (played) prepare(chosenClip());
  play();
});

// --- the rows ---

function makeRow(clip) {
  const row = byId("row").content.cloneNode(true).firstElementChild;
  const thumb = row.querySelector("button");
  row.id = clip.take ? `${clip.name}-${clip.take}` : clip.name;
  row.querySelector("img").src = `${clip.name}.jpg`;
  row.querySelector(".what b").textContent = row.querySelector(".what b").title = clip.prompt;
  row.querySelector(".model-name").textContent = clip.model;
  const id = row.querySelector(".id");
  id.textContent = `${clip.id.slice(0, 8)}…`;
  id.title = `request id ${clip.id}`;
  const hash = row.querySelector(".hash");
  hash.textContent = `prompt ${clip.prompt_hash.slice(0, 8)}…`;
  hash.title = `prompt hash ${clip.prompt_hash}`;
  thumb.setAttribute("aria-label", `Play: ${clip.prompt}`);
  thumb.addEventListener("click", () => {
    choose(clip);
    play();
    video.scrollIntoView({ block: "nearest" }); // on a phone it stands far above the row
  });
  byId(clip.take ? "made" : "waiting").append(row);
  byId("none").hidden ||= clip.take > 0;
  return row;
}

function showRow(row, clip) {
  row.className = `${clip.status}${clip.id === chosen ? " chosen" : ""}`;
  row.querySelector(".status b").textContent = clip.status;
  row.querySelector(".bytes").textContent = clip.bytes === null ? "–" : megabytes(clip.bytes);
  row.querySelector(".thumb").disabled = clip.status === "pending";
  const way = row.querySelector(".way");
  way.textContent = clip.came ?? (clip.owned ? "otherwise" : "");
  way.className = `way ${clip.came ?? "other"}`;
}

// --- the player ---

/** The views of a clip, newest first: each with the reply that began it. */
function viewsOf(clip) {
  const first = new Map();
  for (const reply of clip.replies) if (!first.has(reply.view)) first.set(reply.view, reply);
  return [...first.values()].reverse().slice(0, SHOWN);
}

function whereFrom(reply) {
  if (reply.cache_status.includes("detail=disk")) return "from this machine's own copy";
  if (reply.hit) return "from your own bucket";
  if (reply.cache_status.includes("detail=flight")) return "from the clip on its way in";
  return "streamed from fal.media while being stored";
}

function showView(reply) {
  const item = byId("view").content.cloneNode(true).firstElementChild;
  item.className = reply.hit ? "hit" : "miss";
  item.querySelector("b").textContent = `${ordinal(reply.view)} view: ${item.className}`;
  item.querySelector(".from").textContent = whereFrom(reply);
  item.querySelector(".time").textContent = `first byte ${reply.ms.toFixed(1)} ms`;
  item.querySelector("code").textContent = `Cache-Status: ${reply.cache_status}`;
  return item;
}

function stateOf(clip) {
  if (clip.stored_seconds !== null) {
    return `Yours: verified and stored in ${clip.stored_seconds.toFixed(1)} s.`;
  }
  if (clip.owned) return "Yours: in your bucket.";
  return clip.came ? "On its way into your bucket…" : "Cold: only fal.media has it.";
}

function showChosen(clip) {
  player.querySelector(".size").textContent =
    `${clip.bytes === null ? "" : `${megabytes(clip.bytes)}, `}index at the ${clip.index}`;
  player.querySelector(".state").textContent = stateOf(clip);
  player.querySelector(".views").replaceChildren(...viewsOf(clip).map(showView));
  again.textContent = clip.replies.length ? "View again" : "Play";
}

// --- what happened ---

function show(state) {
  latest = state.clips;
  byId("speed").textContent = state.speed;
  byId("fetched").textContent = megabytes(state.fal.bytes);
  byId("served").textContent = megabytes(state.served.bytes);
  byId("owned").textContent = `${latest.filter((clip) => clip.owned).length} of ${latest.length}`;
  for (const way of WAYS) {
    byId(`by-${way}`).textContent = latest.filter((clip) => clip.owned && clip.came === way).length;
  }
  for (const clip of latest) {
    if (!rows.has(clip.id)) rows.set(clip.id, { row: makeRow(clip), seen: "" });
    if (chosen === null) choose(clip);
    const known = rows.get(clip.id);
    const now = JSON.stringify([clip.status, clip.came, clip.bytes]);
    if (now !== known.seen) showRow(known.row, clip);
    known.seen = now;
  }
  const clip = chosenClip();
  const now = JSON.stringify(clip ?? null);
  if (clip && now !== seen) showChosen(clip); // what did not change is not announced again
  seen = now;
}

async function look() {
  try {
    const reply = await fetch("state.json", { cache: "no-store" });
    show(await reply.json());
    byId("lost").hidden = true;
  } catch {
    byId("lost").hidden = false;
  }
}

async function watch() {
  if (!document.hidden) await look();
  setTimeout(watch, EVERY);
}

document.addEventListener("visibilitychange", () => document.hidden || look());
watch();
