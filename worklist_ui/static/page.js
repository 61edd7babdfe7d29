// What every page has: local times, dark or light, messages.

const two = (number) => String(number).padStart(2, "0");

export function localTimes(root = document) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
    const today = at.toDateString() === new Date().toDateString();
    const day = at.toLocaleDateString(undefined, { day: "2-digit", month: "short" });
    time.textContent = today ? clock : `${day} ${clock}`;
    time.dataset.local = "";
  }
}

export function say(text, kind = "done") {
  const line = document.createElement("p");
  line.className = `message ${kind}`;
  line.textContent = text;
  document.getElementById("messages").replaceChildren(line);
  if (kind === "done") setTimeout(() => line.remove(), 4000);
}

// One step of a reader; gives the answer, or null when the server could not be asked.
export async function step(address, fields = {}) {
  const token = document.querySelector('meta[name="csrf-token"]').content;
  try {
    const response = await fetch(address, {
      method: "POST",
      headers: { "X-CSRFToken": token, Accept: "application/json" },
      body: new URLSearchParams(fields),
      redirect: "error",
    });
    if (response.status === 401) return location.reload();
    const answer = await response.json();
    say(answer.message, response.ok ? "done" : "refused");
    return answer;
  } catch {
    say("The worklist does not answer. Nothing was changed.", "refused");
    return null;
  }
}

// Ask why a reader disagrees; gives the reason and a note, or null.
export function askReason() {
  const dialog = document.getElementById("disagree");
  const buttons = [...dialog.querySelectorAll("[data-reason]")];
  return new Promise((answer) => {
    const note = document.getElementById("note");
    const choose = (button) => { answer({ reason: button.dataset.reason, note: note.value }); dialog.close(); };
    const click = (event) => { const button = event.target.closest("[data-reason]"); if (button) choose(button); };
    const key = (event) => { const button = event.target !== note && buttons[Number(event.key) - 1]; if (button) { event.preventDefault(); choose(button); } };
    dialog.addEventListener("click", click);
    dialog.addEventListener("keydown", key);
    dialog.addEventListener("close", () => {
      dialog.removeEventListener("click", click);
      dialog.removeEventListener("keydown", key);
      answer(null);
    }, { once: true });
    note.value = "";
    dialog.showModal();
  });
}

export function typing(event) {
  if (document.querySelector("dialog[open]")) return true;
  const tag = event.target.closest("input, textarea, select");
  return event.ctrlKey || event.metaKey || event.altKey || (tag && tag.type !== "range");
}

export function showKeys() {
  document.getElementById("keys")?.showModal();
}

export function switchTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "light" ? "dark" : "light";
  document.cookie = `theme=${root.dataset.theme}; Path=/; Max-Age=31536000; SameSite=Lax`;
}

document.getElementById("theme").addEventListener("click", switchTheme);
document.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  if (event.key === "t") switchTheme();
  if (event.key === "?") showKeys();
});
localTimes();
