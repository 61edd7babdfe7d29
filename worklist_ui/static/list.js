// Keeps the open list up to date by server-sent events, and does everything by keys.

import { chooseColumns } from "./columns.js";
import { begin, heardOf, switchNotice } from "./notice.js";
import { askReason, localTimes, say, step, typing } from "./page.js";

const POLL_MS = 2000;
const SILENCE_MS = 40000; // the server says something every 15 s
const table = document.getElementById("list");
const body = document.getElementById("rows");
const live = document.getElementById("live");
let version = table.dataset.version;
let source = null;
let polling = null;
let heard = Date.now();
let flagged = flaggedIds();
let selected = null; // study id under the keyboard
let lastRead = null; // what `u` takes back

function flaggedIds() {
  return new Set([...body.querySelectorAll("tr.urgent:not(.read)")].map((row) => row.dataset.study));
}

function rowFrom(html) {
  const template = document.createElement("template");
  template.innerHTML = html.trim(); // our own server's page, escaped there; the CSP runs no script in it
  return template.content.firstElementChild;
}

function put(page) {
  version = page.version;
  const had = document.activeElement?.closest("tr")?.dataset.study;
  const step = document.activeElement?.dataset?.step;
  const onRow = document.activeElement?.tagName === "TR";
  const rows = page.order.map((id) => {
    const old = document.getElementById(`study-${id}`);
    return page.rows[id] ? rowFrom(page.rows[id]) : old;
  });
  if (rows.some((row) => !row)) return connect(); // a row that we never got: ask for the whole page
  body.replaceChildren(...rows);
  document.getElementById("empty").hidden = rows.length > 0;
  for (const part of ["summary", "banner", "pager"]) document.getElementById(part).innerHTML = page[part];
  localTimes(body);
  waits();
  if (selected) select(document.getElementById(`study-${selected}`), false);
  if (had) {
    const row = document.getElementById(`study-${had}`);
    ((onRow ? row : row?.querySelector(step ? `[data-step="${step}"]` : "a")) ?? row)?.focus({ preventScroll: true });
  }
  markFresh();
  if (heardOf(page.flags, page.last_flag)) {
    live.textContent = "new flag";
    setTimeout(() => { live.textContent = "live"; }, 5000);
  }
}

function markFresh() {
  const now = flaggedIds();
  for (const id of now) {
    if (!flagged.has(id)) document.getElementById(`study-${id}`)?.classList.add("fresh");
  }
  flagged = now;
}

// This view of the list, with the columns that the page's head has.
function asked() {
  const query = new URLSearchParams(location.search);
  query.set("columns", table.dataset.columns);
  return query;
}

function connect() {
  source?.close();
  stopPolling();
  heard = Date.now();
  source = new EventSource(`/list/stream?${asked()}`);
  source.addEventListener("open", () => { heard = Date.now(); live.textContent = "live"; live.className = "live on"; });
  source.addEventListener("page", (event) => { heard = Date.now(); put(JSON.parse(event.data)); });
  source.addEventListener("beat", () => { heard = Date.now(); });
  source.addEventListener("error", () => {
    live.textContent = "reconnecting";
    live.className = "live";
    if (source.readyState === EventSource.CLOSED) poll();
  });
}

function poll() {
  source?.close();
  source = null;
  if (polling) return;
  polling = setInterval(ask, POLL_MS);
  setTimeout(connect, 30000);
}

async function ask() {
  const query = asked();
  query.set("version", version);
  try {
    const response = await fetch(`/list/rows?${query}`, { headers: { Accept: "application/json" } });
    if (response.status === 401) return location.reload();
    if (response.status === 200) put(await response.json());
    live.textContent = "live, every 2 s";
    live.className = "live on";
  } catch {
    live.textContent = "no connection";
    live.className = "live off";
  }
}

function stopPolling() {
  clearInterval(polling);
  polling = null;
}

// Waiting times

function waits() {
  for (const cell of body.querySelectorAll("[data-since]")) {
    cell.textContent = duration((Date.now() - new Date(cell.dataset.since)) / 1000);
  }
}

function duration(seconds) {
  if (seconds < 100) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// Keys

function select(row, scroll = true) {
  body.querySelector("tr.selected")?.classList.remove("selected");
  if (!row) return;
  selected = row.dataset.study;
  row.classList.add("selected");
  if (scroll) {
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }
}

function move(by) {
  const rows = [...body.rows];
  const at = rows.findIndex((row) => row.dataset.study === selected);
  select(rows[at < 0 ? 0 : Math.min(Math.max(at + by, 0), rows.length - 1)]);
}

function press(name) {
  const row = selected && document.getElementById(`study-${selected}`);
  if (!row) return say("Choose a study first: j and k.", "refused");
  const button = row.querySelector(`[data-step="${name}"]`);
  if (!button) return say("That cannot be done with this study now.", "refused");
  return run(button, row);
}

async function run(button, row) {
  const address = button.formAction;
  if (button.dataset.step === "read") {
    lastRead = address.replace(/read$/, "undo");
    move(1);
  }
  await step(address, { revision: row.dataset.revision });
  if (polling) ask();
}

function undo() {
  const row = selected && document.getElementById(`study-${selected}`);
  const button = row?.querySelector('[data-step="undo"]');
  if (button) return run(button, row);
  if (!lastRead) return say("Nothing to undo.", "refused");
  const address = lastRead;
  lastRead = null;
  return step(address);
}

async function opinion(agrees) {
  const row = selected && document.getElementById(`study-${selected}`);
  if (!row) return say("Choose a study first: j and k.", "refused");
  const base = row.querySelector("td.patient a").href;
  const revision = row.dataset.revision;
  if (agrees) return step(`${base}agree`, { revision });
  const said = await askReason();
  return said && step(`${base}disagree`, { revision, ...said });
}

const keys = {
  j: () => move(1), ArrowDown: () => move(1),
  k: () => move(-1), ArrowUp: () => move(-1),
  g: () => select(body.rows[0]), Home: () => select(body.rows[0]),
  o: () => selected && document.querySelector(`#study-${selected} td.patient a`)?.click(),
  c: () => press("claim"), r: () => press("release"), m: () => press("read"), u: undo,
  "/": () => document.getElementById("search").focus(),
  a: () => opinion(true), d: () => opinion(false),
  e: chooseColumns,
  n: switchNotice,
  "[": () => document.querySelector('#pager [rel="prev"]')?.click(),
  "]": () => document.querySelector('#pager [rel="next"]')?.click(),
};
for (const number of [1, 2, 3, 4]) {
  keys[number] = () => document.querySelectorAll("#summary .views a")[number - 1]?.click();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target.id === "search") event.target.blur();
  if (typing(event)) return;
  const inTable = !event.target.closest("a, button") || event.target.closest("tr");
  const key = event.key === "Enter" && event.target.closest("tr") && !event.target.closest("a, button") ? "o" : event.key;
  if (keys[key] && inTable) {
    event.preventDefault();
    keys[key]();
  } else if (keys[key] && !["Enter", "ArrowDown", "ArrowUp", "Home"].includes(key)) {
    event.preventDefault();
    keys[key]();
  }
});
body.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-step]");
  const row = event.target.closest("tr");
  if (row) select(row, false);
  if (!button) return;
  event.preventDefault();
  run(button, row);
});
body.addEventListener("focusin", (event) => select(event.target.closest("tr"), false));

setInterval(waits, 10000);
setInterval(() => { if (!polling && Date.now() - heard > SILENCE_MS) connect(); }, 5000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) connect(); });
window.addEventListener("pagehide", () => source?.close());
begin(Number(table.dataset.lastFlag));
waits();
connect();
