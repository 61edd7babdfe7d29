// Tells of new flags by sound, notification and the page's title; on until the reader switches it off.

import { say } from "./page.js";

const title = document.title.replace(/^\(\d+\) /, "");
const button = document.getElementById("notice");
let known = 0; // when the newest flag that this page knows was raised, seconds since the epoch

export function begin(lastFlag) {
  known = lastFlag;
}

// Take what the server says of the unread flags; tells whether one is new.
export function heardOf(flags, lastFlag) {
  document.title = (flags ? `(${flags}) ` : "") + title;
  if (lastFlag <= known) return false;
  known = lastFlag;
  if (isOn() && firstToTell(lastFlag)) tell();
  return true;
}

export function switchNotice() {
  const on = !isOn();
  localStorage.setItem("notice", on ? "on" : "off");
  show();
  askOnce();
  say(on ? "Sound and notification for new flags are on." : "Sound and notification for new flags are off.");
  if (on) beep();
}

function isOn() {
  return localStorage.getItem("notice") !== "off";
}

// Of several pages that one person has open, one is enough.
function firstToTell(lastFlag) {
  if (Number(localStorage.getItem("told-of-flag")) >= lastFlag) return false;
  localStorage.setItem("told-of-flag", String(lastFlag));
  return true;
}

function show() {
  if (!button) return;
  button.setAttribute("aria-pressed", String(isOn()));
  button.querySelector(".word").textContent = isOn() ? "Sound on" : "Sound off";
}

function tell() {
  beep();
  if ("Notification" in window && Notification.permission === "granted") {
    // No name: a notification stands on screens that others see.
    new Notification("A study was flagged", { tag: "flag" });
  }
}

function beep() {
  try {
    const audio = new AudioContext();
    const tone = audio.createOscillator();
    const gain = audio.createGain();
    gain.gain.setValueAtTime(0.15, audio.currentTime);
    gain.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + 0.5);
    tone.frequency.value = 740;
    tone.connect(gain).connect(audio.destination);
    tone.start();
    tone.stop(audio.currentTime + 0.5);
    tone.onended = () => audio.close();
  } catch { /* a browser without sound still shows the flag */ }
}

// A browser asks whether it may notify only when a person has touched the page.
function askOnce() {
  if (isOn() && "Notification" in window && Notification.permission === "default") Notification.requestPermission();
}

button?.addEventListener("click", switchNotice);
document.addEventListener("pointerdown", askOnce, { once: true });
document.addEventListener("keydown", askOnce, { once: true });
show();
