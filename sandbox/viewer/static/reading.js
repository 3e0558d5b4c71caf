/* Reading pages: copy buttons, words that a revision took up from a reason (pointing at one marks it
   everywhere), and short addresses of forms (fields that are left empty are not sent). */
(function () {
  "use strict";

  function textOf(button) {
    const [selector, key] = button.dataset.copy.split("|");
    const clone = document.querySelector(selector).cloneNode(true);
    if (key) return JSON.parse(clone.textContent)[key];
    clone.querySelectorAll("del").forEach((gone) => gone.remove());
    return clone.textContent;
  }

  function copyBySelection(text) { // without a secure context there is no navigator.clipboard
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "unseen";
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }

  async function write(text) {
    try { await navigator.clipboard.writeText(text); return true; } catch { return copyBySelection(text); }
  }

  async function copy(button) {
    const word = button.querySelector(".word");
    button.dataset.word ??= word.textContent;
    word.textContent = await write(textOf(button)) ? "Copied" : "Not copied";
    setTimeout(() => { word.textContent = button.dataset.word; }, 2000);
    button.focus();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });

  document.addEventListener("formdata", ({ formData }) => {
    const filled = [...formData].filter(([, value]) => value !== "");
    for (const name of new Set(formData.keys())) formData.delete(name);
    for (const [name, value] of filled) formData.append(name, value); // a name may occur several times
  });

  document.addEventListener("pointerover", (event) => {
    const word = event.target.closest?.("mark[data-word]")?.dataset.word;
    for (const mark of document.querySelectorAll("mark[data-word]")) {
      mark.classList.toggle("same", mark.dataset.word === word);
    }
  });
})();
