// The demo's page: plays clips, and shows what the proxy said of each view.
//
// A view is one run of the player under an address of its own. The page never asks for a clip by
// itself: only playing turns a miss into a hit.

const EVERY = 300; // milliseconds between two looks at what happened
const SHOWN = 3; // views that a card shows

const cards = new Map();
const byId = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const ordinal = (number) => ["First", "Second", "Third", "Fourth", "Fifth"][number - 1] ?? `${number}th`;

/**
 * Point the player at the clip under an address that no cache of the browser has seen.
 * No load(): that would overrule preload="none" and ask for the clip before anyone plays it.
 */
function prepare(video, url) {
  video.src = `${url}?view=${Math.random().toString(36).slice(2, 10)}`;
}

function makeCard(clip) {
  const card = byId("card").content.cloneNode(true).firstElementChild;
  const video = card.querySelector("video");
  const button = card.querySelector("button");
  card.id = clip.name;
  card.querySelector("h2").textContent = clip.prompt;
  card.querySelector(".model code").textContent = clip.model;
  card.querySelector(".model span").textContent =
    `${megabytes(clip.bytes)}, index at the ${clip.index}`;
  video.poster = `${clip.name}.jpg`;
  video.setAttribute("aria-label", clip.prompt);
  button.setAttribute("aria-label", `Play: ${clip.prompt}`);
  prepare(video, clip.url);
  let played = false;
  video.addEventListener("play", () => {
    played = true;
    look();
  });
  // The player's own button then begins another view too, not only a repeat from memory.
  video.addEventListener("ended", () => {
    played = false;
    prepare(video, clip.url);
  });
  button.addEventListener("click", () => {
    if (played) prepare(video, clip.url);
    video.play();
  });
  byId("clips").append(card);
  return card;
}

/** The views of a clip, newest first: each with the reply that began it. */
function viewsOf(clip) {
  const first = new Map();
  for (const reply of clip.replies) if (!first.has(reply.view)) first.set(reply.view, reply);
  return [...first.values()].reverse().slice(0, SHOWN);
}

function whatHappened(reply) {
  if (reply.hit) return "from your own bucket";
  if (reply.cache_status.includes("detail=flight")) return "from the clip on its way in";
  return "streamed from fal.media while being stored";
}

function showView(reply) {
  const item = byId("view").content.cloneNode(true).firstElementChild;
  item.className = reply.hit ? "hit" : "miss";
  item.querySelector("b").textContent = `${ordinal(reply.view)} view: ${item.className}`;
  item.querySelector(".what").textContent = whatHappened(reply);
  item.querySelector(".time").textContent = `first byte ${reply.ms.toFixed(1)} ms`;
  item.querySelector("code").textContent = `Cache-Status: ${reply.cache_status}`;
  return item;
}

function stateOf(clip) {
  if (clip.stored_seconds !== null) {
    return `Yours: verified and stored in ${clip.stored_seconds.toFixed(1)} s.`;
  }
  if (clip.owned) return "Yours: in your bucket.";
  return clip.replies.length ? "On its way into your bucket…" : "Cold: only fal.media has it.";
}

function show(state) {
  byId("speed").textContent = state.speed;
  byId("fetched").textContent = megabytes(state.fal.bytes);
  byId("served").textContent = megabytes(state.served.bytes);
  byId("owned").textContent = `${state.clips.filter((clip) => clip.owned).length} of ${state.clips.length}`;
  for (const clip of state.clips) {
    if (!cards.has(clip.name)) cards.set(clip.name, { card: makeCard(clip), seen: "" });
    const known = cards.get(clip.name);
    const now = JSON.stringify([clip.owned, clip.stored_seconds, clip.replies]);
    if (now === known.seen) continue; // what did not change is not announced again
    known.seen = now;
    known.card.querySelector(".state").textContent = stateOf(clip);
    known.card.querySelector(".views").replaceChildren(...viewsOf(clip).map(showView));
    const word = clip.replies.length ? "View again" : "Play";
    known.card.querySelector("button").textContent = word;
    known.card.querySelector("button").setAttribute("aria-label", `${word}: ${clip.prompt}`);
  }
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
