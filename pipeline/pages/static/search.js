// The search page: asks the API while typing stops, shows moments, plays them. No outside resource.
"use strict";

const $ = (id) => document.getElementById(id);
const WAIT = 250; // milliseconds after the last letter
const STRIP = 8; // pictures where a browser cannot play the film

let timer = 0;
let asking = null; // the request under way
let like = [];
let unlike = [];
let playing = null; // the moment in the player

function parameters() {
  const fields = new URLSearchParams();
  const set = (name, value) => value && fields.set(name, value);
  set("q", $("q").value.trim());
  set("index", $("index").value);
  set("top", $("top").value);
  set("min_score", $("min_score").value);
  set("path", $("path").value.trim());
  if ($("per_video").checked) fields.set("per_video", "1");
  like.forEach((id) => fields.append("like", id));
  unlike.forEach((id) => fields.append("unlike", id));
  return fields;
}

function remember() {
  const fields = parameters();
  if (playing) {
    fields.set("play", playing.video);
    fields.set("at", playing.start);
    if (playing.end !== null) fields.set("to", playing.end);
  }
  history.replaceState(null, "", fields.size ? `?${fields}` : "/");
}

function restore() {
  const fields = new URLSearchParams(location.search);
  for (const name of ["q", "top", "min_score", "path"]) {
    if (fields.has(name)) $(name).value = fields.get(name);
  }
  if (fields.has("index")) $("index").value = fields.get("index");
  $("per_video").checked = fields.get("per_video") === "1";
  like = fields.getAll("like");
  unlike = fields.getAll("unlike");
  if (fields.has("play")) {
    const start = Number(fields.get("at")) || 0;
    const end = fields.has("to") ? Number(fields.get("to")) : null;
    play({ video: fields.get("play"), start: start, end: end, span: "" });
  }
}

async function ask() {
  const fields = parameters();
  remember();
  showWanted();
  if (asking) asking.abort();
  if (!fields.get("q") && !like.length && !unlike.length) {
    $("answers").replaceChildren();
    say("Type what you look for.");
    return;
  }
  asking = new AbortController();
  await show(fetch(`/api/search?${fields}`, { signal: asking.signal }));
}

async function askByFile(file) {
  if (asking) asking.abort();
  asking = new AbortController();
  const body = new FormData();
  body.append("file", file);
  say(`Looking at ${file.name} ...`);
  const fields = new URLSearchParams({ index: $("index").value, top: $("top").value });
  const request = { method: "POST", body: body, signal: asking.signal };
  await show(fetch(`/api/similar?${fields}`, request));
}

async function show(request) {
  try {
    const response = await request;
    const found = await response.json();
    if (!response.ok) {
      $("answers").replaceChildren();
      const problem = found.error || found.detail;
      say([typeof problem === "string" ? problem : "That cannot be asked.", found.fix]
        .filter(Boolean).join(" "));
      return;
    }
    $("answers").replaceChildren(...found.answers.map(card));
    const words = [`${found.answers.length} answers; searched ${found.searched}.`];
    if (found.unknown_words.length) {
      words.push(`The model does not know: ${found.unknown_words.join(", ")}.`);
    }
    say(words.concat(found.ties).join(" "));
  } catch (error) {
    if (error.name !== "AbortError") say("The server does not answer.");
  }
}

function say(words) {
  $("said").textContent = words;
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function picture(moment) {
  const fields = new URLSearchParams({ video: moment.video, start: moment.start, index: $("index").value });
  if (moment.end !== null) fields.set("end", moment.end);
  return `/still?${fields}`;
}

function card(moment) {
  const words = `${moment.video} ${moment.span}`.trim();
  const image = element("img", { src: picture(moment), alt: words, loading: "lazy" });
  const button = element("button", { className: "play", type: "button" }, image);
  button.setAttribute("aria-label", `Play ${words}`);
  image.addEventListener("error", () =>
    image.replaceWith(element("span", { textContent: moment.path ? "no picture" : "no file is known" })));
  button.addEventListener("click", () => play(moment));
  const score = element("span", { className: "score", textContent: moment.score.toFixed(4) });
  const about = element(
    "div",
    { className: "about" },
    element("p", {}, score, `${moment.rank}. ${moment.video}`),
    element("p", { className: "quiet", textContent: moment.span }),
  );
  const more = element("button", { type: "button", textContent: "More like this" });
  more.setAttribute("aria-label", `More like ${words}`);
  more.addEventListener("click", () => want(like, moment.video));
  const less = element("button", { type: "button", textContent: "Not like this" });
  less.setAttribute("aria-label", `Not like ${words}`);
  less.addEventListener("click", () => want(unlike, moment.video));
  return element("li", {}, button, about, element("div", { className: "more" }, more, less));
}

function want(list, video) {
  if (!list.includes(video)) list.push(video);
  ask();
  $("q").focus();
}

function showWanted() {
  const drop = (list, sign, id) => {
    const button = element("button", { type: "button", textContent: `${sign} ${id}  \u00d7` });
    button.setAttribute("aria-label", `Take away: ${sign} ${id}`);
    button.addEventListener("click", () => {
      list.splice(list.indexOf(id), 1);
      ask();
      $("q").focus();
    });
    return button;
  };
  $("wanted").replaceChildren(
    ...like.map((id) => drop(like, "like", id)),
    ...unlike.map((id) => drop(unlike, "not like", id)),
  );
}

function play(moment) {
  playing = moment;
  const film = $("film");
  $("player-title").textContent = `${moment.video} ${moment.span}`.trim();
  $("player-said").textContent = "";
  $("strip").hidden = true;
  film.hidden = false;
  const fields = new URLSearchParams({ video: moment.video, index: $("index").value });
  const part = moment.end === null ? `#t=${moment.start}` : `#t=${moment.start},${moment.end}`;
  film.src = `/film?${fields}${part}`;
  film.onerror = () => unplayed(moment);
  if (!$("player").open) $("player").showModal();
  film.play().catch(() => {});
  remember();
}

async function unplayed(moment) {
  $("film").hidden = true;
  const fields = new URLSearchParams({ index: $("index").value });
  const address = `/api/videos/${encodeURIComponent(moment.video)}?${fields}`;
  const known = await fetch(address).then((reply) => reply.json()).catch(() => ({}));
  if (playing !== moment) return;
  if (known.is_there) strip(moment);
  else $("player-said").textContent = "The file of this film is not there any more.";
}

function strip(moment) {
  $("strip").hidden = false;
  $("player-said").textContent = "This browser cannot play the film: pictures of the moment instead.";
  const end = moment.end === null ? moment.start + 10 : moment.end;
  const step = (end - moment.start) / STRIP;
  const images = Array.from({ length: STRIP }, (_, n) => {
    const start = moment.start + n * step;
    const part = { video: moment.video, start: start, end: start + step };
    const image = element("img", { src: picture(part), alt: `${start.toFixed(1)} seconds` });
    image.addEventListener("error", () => image.remove());
    return image;
  });
  $("strip").replaceChildren(...images);
}

function closed() {
  playing = null;
  $("film").onerror = null;
  $("film").removeAttribute("src");
  $("film").load();
  $("strip").replaceChildren();
  remember();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(timer);
  ask();
});
$("form").addEventListener("input", (event) => {
  if (event.target.id === "file") return;
  clearTimeout(timer);
  timer = setTimeout(ask, WAIT);
});
$("file").addEventListener("change", () => $("file").files.length && askByFile($("file").files[0]));
$("close").addEventListener("click", () => $("player").close());
$("player").addEventListener("close", closed);
document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement.tagName);
  if (event.key === "/" && !typing && !$("player").open) {
    event.preventDefault();
    $("q").focus();
  }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  if (event.dataTransfer.files.length) askByFile(event.dataTransfer.files[0]);
});
restore();
if (location.search) ask();
