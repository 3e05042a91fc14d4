"use strict";
// Filters, position and keys of a page with items. All texts are in the page already; nothing is fetched.
const hound = {
  bar: document.getElementById("bar"),
  place: document.getElementById("place"),
  unit: document.querySelector("main")?.dataset.unit || "items",

  controls() { return [...this.bar.querySelectorAll("[data-filter]")]; },

  keeps(values, control) {
    const value = values[control.dataset.filter];
    if (control.value === "" || value === undefined || value === "") {
      return control.dataset.side !== "is" || control.value === "" || value === control.value;
    }
    if (control.dataset.side === "is") { return String(value) === control.value; }
    return control.dataset.side === "from" ? Number(value) >= Number(control.value) : Number(value) <= Number(control.value);
  },

  filtered() {  // how many controls are not as they were at first
    return this.controls().filter((one) => one.value !== (one.tagName === "SELECT" ? "" : one.defaultValue)).length;
  },

  showFiltered() {
    const number = this.filtered();
    document.getElementById("filtered").textContent = number ? `(${number} set)` : "";
  },

  reset() {
    for (const one of this.controls()) { one.value = one.tagName === "SELECT" ? "" : one.defaultValue; }
  },

  // `actions`: what a button's data-do or a key does; keys stay with fields while one is typed in
  listen(actions, keys) {
    this.bar.addEventListener("click", (event) => {
      const name = event.target.closest("[data-do]")?.dataset.do;
      if (name) { actions[name](); }
    });
    this.bar.addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, video")) { return; }
      const name = keys[event.key];
      if (name) { event.preventDefault(); actions[name](); }
    });
  },
};

hound.list = function () {
  const items = [...document.querySelectorAll("main .item")];
  let shown = items, current = -1;

  for (const empty of document.querySelectorAll(".frames[data-same-as]")) {
    const first = [...document.querySelectorAll(".frames[data-clip]")].find((one) => one.dataset.clip === empty.dataset.sameAs);
    if (first) { empty.className = first.className; empty.append(...[...first.children].map((one) => one.cloneNode(true))); }
  }

  function tell() {
    const all = shown.length === items.length ? "" : ` shown, ${items.length} ${hound.unit} here`;
    hound.place.textContent = current < 0 ? `${shown.length} ${all ? "" : hound.unit}${all}` : `${current + 1} of ${shown.length}${all}`;
    document.getElementById("none").hidden = shown.length > 0;
  }

  function go(position) {
    if (!shown.length) { return; }
    for (const one of items) { one.classList.remove("current"); }
    current = Math.min(Math.max(position, 0), shown.length - 1);
    shown[current].classList.add("current");
    shown[current].scrollIntoView({ block: "start" });
    shown[current].focus({ preventScroll: true });
    tell();
  }

  function apply() {
    const controls = hound.controls();
    const before = shown[current];
    shown = items.filter((one) => controls.every((control) => hound.keeps(one.dataset, control)));
    const kept = new Set(shown);
    for (const one of items) { one.hidden = !kept.has(one); one.classList.remove("current"); }
    current = before && kept.has(before) ? shown.indexOf(before) : -1;
    if (current >= 0) { before.classList.add("current"); }
    hound.showFiltered();
    tell();
  }

  const actions = { next: () => go(current + 1), back: () => go(current - 1), reset: () => { hound.reset(); apply(); } };
  hound.listen(actions, { j: "next", n: "next", ArrowRight: "next", k: "back", p: "back", ArrowLeft: "back" });
  hound.bar.addEventListener("input", apply);
  apply();
};

if (hound.bar && !document.querySelector("main[data-served]")) { hound.list(); }
