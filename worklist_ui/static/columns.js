// The dialog in which a reader chooses columns and their order; the form sends them as they stand.

const dialog = document.getElementById("columns");

export function chooseColumns() {
  dialog.showModal();
}

dialog.addEventListener("click", (event) => {
  const button = event.target.closest("[data-move]");
  if (!button) return;
  const item = button.closest("li");
  const beside = button.dataset.move === "1" ? item.nextElementSibling : item.previousElementSibling;
  if (!beside) return;
  if (button.dataset.move === "1") beside.after(item);
  else beside.before(item);
  button.focus();
});
document.getElementById("choose-columns").addEventListener("click", chooseColumns);
