// The page: recordings enter a queue, and each gets a card with what the server says.

import { css, percent, ranked, text, time, Timeline } from "./timeline.js";
import { canRecord, record } from "./recorder.js";

const LONGEST_RECORDING_S = 300;
const MOST_TRIES = 60; // of a server that has too much to do

const by = (id) => document.getElementById(id);
const tight = (words) => words.replaceAll(" %", "\u00a0%");
const queue = [];
const looks = new Map(); // genre to the number of its look
let working = false;
let about = null;

const say = (words) => { by("said").textContent = words; };

function trouble(words) {
  by("trouble").textContent = words;
  by("trouble").hidden = !words;
}

// --- what the server is

async function meet() {
  try {
    about = await (await fetch("/api/about")).json();
  } catch {
    trouble("The server does not answer. Start it again, then reload this page.");
    return;
  }
  const { max_mb, max_minutes } = about.limits;
  by("limits").textContent = `Any audio file of up to ${max_mb} MB and ${max_minutes} min.`;
  by("knows").textContent =
    `It knows ${about.labels.length} genres and no others: ${about.labels.join(", ")}. ` +
    "Whatever it hears, it answers with these.";
  for (const [name, value] of Object.entries(about.facts)) {
    const row = by("facts").insertRow();
    row.append(cell("th", name, "row"), cell("td", value));
  }
}

function cell(kind, words, scope) {
  const made = document.createElement(kind);
  made.textContent = words;
  if (scope) made.scope = scope;
  return made;
}

// --- the queue

function add(files) {
  const cards = [...files].map(newCard);
  if (!cards.length) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  cards[0].root.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  say(cards.length > 1 ? `${cards.length} files added` : `${cards[0].file.name} added`);
  work();
}

function newCard(file) {
  const root = by("card").content.firstElementChild.cloneNode(true);
  const card = { file, root, part: (name) => root.querySelector(`.${name}`), abort: null };
  card.part("name").textContent = file.name;
  root.setAttribute("aria-label", file.name);
  card.part("remove").setAttribute("aria-label", `Remove ${file.name}`);
  card.part("remove").addEventListener("click", () => remove(card));
  card.part("again").addEventListener("click", () => { wait(card); work(); });
  by("cards").append(root);
  wait(card);
  return card;
}

function wait(card) {
  state(card, "waiting");
  card.part("again").hidden = card.part("refusal").hidden = true;
  queue.push(card);
}

function state(card, name) {
  card.root.classList.remove("waiting", "working", "done", "refused");
  card.root.classList.add(name);
  card.part("state").textContent = name;
  card.part("busy").hidden = name !== "working";
  card.part("busy").setAttribute("aria-label", `Working on ${card.file.name}`);
}

function remove(card) {
  const place = queue.indexOf(card);
  if (place >= 0) queue.splice(place, 1);
  card.abort?.abort();
  card.end?.();
  const next = card.root.nextElementSibling ?? card.root.previousElementSibling;
  card.root.remove();
  (next?.querySelector(".remove") ?? by("files")).focus();
  say(`${card.file.name} removed`);
}

async function work() {
  if (working) return;
  working = true;
  while (queue.length) {
    const card = queue.shift();
    try {
      await judge(card);
    } catch (error) {
      console.error(error);
      refuse(card, { error: "the page made a mistake; load it anew", again: true });
    }
  }
  working = false;
}

async function judge(card) {
  state(card, "working");
  card.abort = new AbortController();
  const refused = hindrance(card.file);
  const found = refused ? { error: refused } : await ask(card.file, card.abort.signal);
  if (card.abort.signal.aborted) return;
  if (found.error) refuse(card, found);
  else show(card, found);
}

function hindrance(file) {
  if (file.isFolder) return "this is a folder; drop the files that are in it";
  const most = about?.limits.max_mb;
  if (most && file.size > most * 1e6) {
    return `the file is larger than ${most} MB, the most that this server takes; send a ` +
      "shorter or compressed one, or start the server with a larger --max_mb";
  }
  return "";
}

// The server's answer, or { error, again }.
async function ask(file, signal) {
  const hop_s = by("hop").value;
  const headers = { "Content-Type": "application/octet-stream" };
  try {
    for (let tries = 1; ; tries += 1) {
      const response = await fetch(
        `/api/predict?hop_s=${hop_s}`, { method: "POST", body: file, headers, signal },
      );
      const pause_s = Number(response.headers.get("Retry-After"));
      if (response.status === 503 && pause_s && tries < MOST_TRIES) {
        await new Promise((resolve) => setTimeout(resolve, 1000 * pause_s));
        continue;
      }
      const found = await response.json();
      return response.ok ? found : { ...found, again: response.status >= 500 };
    }
  } catch {
    return {
      error: "it could not be sent: the server has ended, or the file was moved or changed",
      again: true,
    };
  }
}

function refuse(card, { error, again }) {
  state(card, "refused");
  card.part("refusal").textContent = `Refused: ${error}.`;
  card.part("refusal").hidden = false;
  card.part("again").hidden = !again;
  say(`${card.file.name}: refused, ${error}`);
}

// --- one answer

function show(card, found) {
  const { part, file } = card;
  state(card, "done");
  dress(found);
  part("answer").textContent = tight(found.answer);
  part("note").textContent = `Note: ${found.note}.`;
  part("note").hidden = !found.note;
  part("took").textContent =
    `${time(found.duration_s)} judged in ${found.seconds.toFixed(1)} s, ` +
    `in ${found.times_s.length} ${found.times_s.length > 1 ? "windows" : "window"} ` +
    `of ${found.window_s} s.`;
  legend(part("legend"), found);
  table(part("windows"), found, file.name);
  part("result").hidden = false;
  card.end = player(card, found);
  say(`${file.name}: ${found.answer}`);
}

// A genre keeps its look from card to card. The ones that matter first get the looks
// that differ most.
function dress(found) {
  for (const label of Object.keys(found.overall)) {
    if (!looks.has(label)) looks.set(label, looks.size);
  }
  found.looks = found.labels.map((label) => looks.get(label));
}

function legend(list, found) {
  const peak = (k) => Math.max(...found.probabilities.map((row) => row[k]));
  const overall = found.labels.map((label) => found.overall[label]);
  const seen = ranked(overall).filter((k) => overall[k] >= 0.005 || peak(k) >= 0.05);
  for (const k of seen) {
    const item = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = css(found.looks[k]);
    item.append(swatch, `${found.labels[k]} ${percent(overall[k])}`);
    list.append(item);
  }
  const others = found.labels.length - seen.length;
  if (others) list.append(cell("li", `${others} more below 1 %`));
}

// It may have thousands of rows: it is made when it is asked for.
function table(details, found, name) {
  details.addEventListener("toggle", () => {
    const box = details.querySelector(".scroll");
    if (box.firstChild) return;
    box.setAttribute("aria-label", `Windows of ${name}`);
    const made = document.createElement("table");
    made.createCaption().textContent = "Probability of each genre, in percent";
    made.createTHead().insertRow().append(
      ...["Time", ...found.labels].map((words) => cell("th", words, "col")),
    );
    const body = made.createTBody();
    found.probabilities.forEach((row, w) => {
      const from = found.times_s[w];
      const to = Math.min(from + found.window_s, found.duration_s);
      const cells = row.map((share) => cell("td", (100 * share).toFixed(0)));
      cells[ranked(row)[0]].className = "most";
      body.insertRow().append(cell("th", `${time(from)}–${time(to)}`, "row"), ...cells);
    });
    box.append(made);
  });
}

// Joins sound and picture; returns what takes them apart.
function player(card, found) {
  const { part, file, root } = card;
  const audio = root.querySelector("audio");
  const address = URL.createObjectURL(file);
  audio.setAttribute("aria-label", `Play ${file.name}`);
  let mute = false;
  const timeline = new Timeline(part("timeline"), found, {
    label: `Position in ${file.name}`,
    onSeek(at_s) {
      if (!mute) audio.currentTime = at_s;
      show(at_s);
    },
    onToggle() {
      if (mute) return;
      if (audio.paused) audio.play().catch(() => {});
      else audio.pause();
    },
  });
  const show = (at_s) => {
    timeline.show(at_s);
    part("here").textContent = `At ${time(at_s)}: ${text(found, at_s, 3)}`;
  };
  const follow = () => {
    show(audio.currentTime);
    if (!audio.paused && !audio.ended) requestAnimationFrame(follow);
  };
  audio.addEventListener("play", follow);
  audio.addEventListener("seeked", () => show(audio.currentTime));
  audio.addEventListener("error", () => {
    mute = true;
    audio.hidden = true;
    part("mute").hidden = false;
  });
  audio.src = address;
  show(0);
  return () => {
    audio.pause();
    timeline.end();
    URL.revokeObjectURL(address);
  };
}

// --- what comes in

function dropped(transfer) {
  const files = [];
  for (const item of transfer.items) {
    const file = item.kind === "file" && item.getAsFile();
    if (!file) continue;
    file.isFolder = Boolean(item.webkitGetAsEntry?.()?.isDirectory);
    files.push(file);
  }
  return files;
}

// The whole page takes drops, so that one that misses does not leave the page.
function takeDrops() {
  let depth = 0;
  const over = (change) => {
    depth = change ? Math.max(0, depth + change) : 0;
    by("drop").classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(0);
    add(dropped(event.dataTransfer));
  });
}

function takeMicrophone() {
  const button = by("record");
  const words = button.textContent;
  let running = null;
  let count = 0;
  button.hidden = !canRecord();

  const stop = async () => {
    const { recording, clock } = running;
    running = null;
    clearInterval(clock);
    button.textContent = words;
    button.classList.remove("recording");
    count += 1;
    const sound = await recording.stop();
    add([new File([sound], `Recording ${count}.wav`, { type: "audio/wav" })]);
  };
  const start = async () => {
    button.disabled = true;
    try {
      const recording = await record();
      const began = Date.now();
      const tick = () => {
        const passed_s = (Date.now() - began) / 1000;
        button.textContent = `Stop recording (${time(passed_s)})`;
        if (passed_s >= LONGEST_RECORDING_S) stop();
      };
      running = { recording, clock: setInterval(tick, 500) };
      button.classList.add("recording");
      tick();
      trouble("");
      say("recording");
    } catch (error) {
      trouble(
        `The microphone cannot be used (${error.message}). Connect one, allow it for this ` +
        "page, and try again.",
      );
    }
    button.disabled = false;
    button.focus();
  };
  button.addEventListener("click", () => (running ? stop() : start()));
}

by("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
takeDrops();
takeMicrophone();
meet();
