// Scrolls and windows the preview; the study's steps by keys.

import { askReason, step, typing } from "./page.js";

const viewer = document.getElementById("viewer");
if (viewer) preview();

function preview() {
  const image = document.getElementById("slice");
  const bar = document.getElementById("scroll");
  const where = document.getElementById("where");
  const shown = document.getElementById("window");
  const presets = [...document.querySelectorAll(".presets [data-width]")];
  const map = document.getElementById("map"); // research mode alone
  const slices = Number(viewer.dataset.slices);
  let index = Number(viewer.dataset.first);
  let wide = Number(presets[0].dataset.width);
  let level = Number(presets[0].dataset.level);
  let loading = false;
  let wanted = null;
  const ahead = new Map(); // pictures asked for before they are needed

  const address = (at) => `${viewer.dataset.source}${at}.jpg?width=${wide}&level=${level}${mapped() ? "&map=1" : ""}`;
  const mapped = () => map?.getAttribute("aria-pressed") === "true";

  // At most one picture travels for the eye; while it does, only the newest wish is kept.
  function draw() {
    bar.value = index;
    where.textContent = `Slice ${index + 1} of ${slices}`;
    shown.textContent = `W ${Math.round(wide)} L ${Math.round(level)} HU`;
    for (const button of document.querySelectorAll("[data-slice]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.slice) === index));
    }
    wanted = address(index);
    if (!loading) load();
  }

  async function load() {
    loading = true;
    while (wanted) {
      const source = wanted;
      wanted = null;
      const next = new Image();
      next.src = source;
      try { await next.decode(); image.src = source; } catch { where.textContent = "No picture"; }
    }
    loading = false;
    for (const near of [index + 1, index - 1, index + 2, index - 2]) {
      const source = near >= 0 && near < slices ? address(near) : null;
      if (source && !ahead.has(source)) {
        const early = new Image();
        early.src = source;
        ahead.set(source, early);
        if (ahead.size > 64) ahead.delete(ahead.keys().next().value);
      }
    }
  }

  function go(to) {
    index = Math.min(Math.max(to, 0), slices - 1);
    draw();
  }

  function nextKey() {
    const all = [...document.querySelectorAll("[data-slice]")].map((button) => Number(button.dataset.slice));
    if (all.length) go(all[(all.indexOf(index) + 1) % all.length]);
  }

  function setWindow(width, centre) {
    wide = Math.min(Math.max(Math.round(width), 1), 8000);
    level = Math.min(Math.max(Math.round(centre), -2000), 4000);
    for (const button of presets) {
      const same = Number(button.dataset.width) === wide && Number(button.dataset.level) === level;
      button.setAttribute("aria-pressed", String(same));
    }
    draw();
  }

  map?.addEventListener("click", () => {
    map.setAttribute("aria-pressed", String(!mapped()));
    draw();
  });
  bar.addEventListener("input", () => go(Number(bar.value)));
  viewer.addEventListener("wheel", (event) => { event.preventDefault(); go(index + Math.sign(event.deltaY)); }, { passive: false });
  for (const button of presets) {
    button.addEventListener("click", () => setWindow(Number(button.dataset.width), Number(button.dataset.level)));
  }
  for (const button of document.querySelectorAll("[data-slice]")) {
    button.addEventListener("click", () => go(Number(button.dataset.slice)));
  }
  viewer.addEventListener("pointerdown", (event) => {
    const from = { x: event.clientX, y: event.clientY, wide, level };
    viewer.setPointerCapture(event.pointerId);
    const drag = (moved) => setWindow(from.wide + (moved.clientX - from.x) * 2, from.level - (moved.clientY - from.y));
    viewer.addEventListener("pointermove", drag);
    viewer.addEventListener("pointerup", () => viewer.removeEventListener("pointermove", drag), { once: true });
  });
  document.addEventListener("keydown", (event) => {
    if (typing(event)) return;
    const by = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: 5, PageUp: -5 }[event.key];
    if (by) go(index + by);
    else if (event.key === "s") nextKey();
    else if (event.key === "p") map?.click();
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(slices - 1);
    else if (presets[Number(event.key) - 1]) presets[Number(event.key) - 1].click();
    else return;
    event.preventDefault();
  });
  draw();
}

const steps = { c: "claim", r: "release", m: "read", u: "undo", a: "agree", d: "disagree" };
document.querySelector('[data-step="disagree"]')?.addEventListener("click", async () => {
  const study = document.getElementById("study");
  const said = await askReason();
  if (!said) return;
  const answer = await step(`${location.pathname}disagree`, { ...said, revision: study.dataset.revision });
  if (answer?.answer === "done") location.reload();
});
document.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  if (event.key === "Escape" || event.key === "l") document.querySelector("a.back").click();
  else if (event.key === "v") document.getElementById("viewer-link")?.click();
  else if (event.key === "]") document.getElementById("next-study")?.click();
  else document.querySelector(`#step [data-step="${steps[event.key]}"]`)?.click();
});
