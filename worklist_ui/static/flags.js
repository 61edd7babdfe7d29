// Beside the list: how many flags are unread, and a sound when there is a new one.

import { begin, heardOf, switchNotice } from "./notice.js";
import { typing } from "./page.js";

const AGAIN_MS = 30000; // after a server that had no place for one more stream
const link = document.getElementById("flags");
let source = null;
let first = true;

function connect() {
  source = new EventSource("/list/flags");
  source.addEventListener("flags", (event) => put(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN_MS);
  });
}

function put({ flags, last_flag: lastFlag }) {
  if (first) begin(lastFlag);
  first = false;
  const fresh = heardOf(flags, lastFlag);
  link.hidden = flags === 0;
  link.querySelector(".n").textContent = flags;
  link.querySelector(".what").textContent = flags === 1 ? "unread flag" : "unread flags";
  link.classList.toggle("fresh", fresh);
}

document.addEventListener("keydown", (event) => {
  if (!typing(event) && event.key === "n") switchNotice();
});
window.addEventListener("pagehide", () => source.close());
connect();
