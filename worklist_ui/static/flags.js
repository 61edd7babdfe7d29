// Beside the list: how many flags are unread, and a sound when there is a new one.

import { begin, heardOf, switchNotice } from "./notice.js";
import { typing } from "./page.js";

const link = document.getElementById("flags");
const source = new EventSource("/list/flags");
let first = true;

source.addEventListener("flags", (event) => {
  const { flags, last_flag: lastFlag } = JSON.parse(event.data);
  if (first) begin(lastFlag);
  first = false;
  const fresh = heardOf(flags, lastFlag);
  link.hidden = flags === 0;
  link.querySelector(".n").textContent = flags;
  link.querySelector(".what").textContent = flags === 1 ? "unread flag" : "unread flags";
  link.classList.toggle("fresh", fresh);
});
document.addEventListener("keydown", (event) => {
  if (!typing(event) && event.key === "n") switchNotice();
});
window.addEventListener("pagehide", () => source.close());
