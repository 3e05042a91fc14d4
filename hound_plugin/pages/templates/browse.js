// One pair at a time from the server; drops are written at once, and what was dropped stays where it is.
hound.served = async function () {
  const stage = document.getElementById("stage"), toast = document.getElementById("toast");
  const drop = document.getElementById("drop"), undo = document.getElementById("undo");
  const pairs = await (await fetch("/api/pairs")).json();
  const cache = new Map(), marks = [];
  let shown = [], current = -1, timer = 0, asked = 0;

  function tell(text) {
    toast.textContent = text;
    clearTimeout(timer);
    timer = setTimeout(() => { toast.textContent = ""; }, 6000);
  }

  function load(pair) {
    if (!cache.has(pair.number)) {
      const answer = fetch(`/api/pair/${pair.number}`).then((got) => {
        if (!got.ok) { throw new Error(`the server answered ${got.status}`); }
        return got.text();
      });
      answer.catch(() => cache.delete(pair.number));
      cache.set(pair.number, answer);
      if (cache.size > 12) { cache.delete(cache.keys().next().value); }
    }
    return cache.get(pair.number);
  }

  function showState() {
    const dropped = pairs.filter((one) => one.values.verdict === "dropped");
    const pair = shown[current];
    const whole = shown.length === pairs.length ? "" : ` shown, ${pairs.length} in all`;
    hound.place.textContent = pair ? `pair ${current + 1} of ${shown.length}${whole}` : `0 of ${pairs.length} pairs shown`;
    hound.place.textContent += `, ${dropped.length} dropped`;
    document.getElementById("dropped-line").textContent = `dropped pairs (${dropped.length})`;
    const list = document.getElementById("dropped-list");
    list.hidden = !dropped.length;
    document.getElementById("dropped-ids").replaceChildren(...dropped.map((one) => {
      const row = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.textContent = one.id;
      button.addEventListener("click", () => visit(one));
      row.append(button);
      return row;
    }));
    const is_dropped = pair && pair.values.verdict === "dropped";
    stage.classList.toggle("dropped", Boolean(is_dropped));
    drop.textContent = is_dropped ? "take back" : "drop";
    drop.disabled = !pair;
    undo.disabled = !marks.length;
    document.getElementById("none").hidden = shown.length > 0;
    stage.querySelector(".stamp")?.remove();
    if (is_dropped) {
      const stamp = document.createElement("span");
      stamp.className = "stamp";
      stamp.textContent = " dropped";
      stage.querySelector(".item h3")?.append(stamp);
    }
  }

  async function show() {
    const pair = shown[current], turn = ++asked;
    if (!pair) { stage.replaceChildren(); showState(); return; }
    try {
      const page = new DOMParser().parseFromString(await load(pair), "text/html");
      if (turn !== asked) { return; }
      stage.replaceChildren(...page.body.children);
      stage.dataset.pair = pair.id;
    } catch (problem) {
      stage.replaceChildren();
      tell(`This pair could not be loaded: ${problem.message}. Is \`hound reward browse\` still running?`);
    }
    showState();
    if (shown[current + 1]) { load(shown[current + 1]).catch(() => {}); }
  }

  function go(position) {
    const last = Math.max(0, shown.length - 1);
    if (position > last) { tell("This was the last pair of those shown."); }
    current = Math.min(Math.max(position, 0), last);
    return show();
  }

  function visit(pair) {  // also one that the filters hide
    if (!shown.includes(pair)) { shown = [...shown, pair].sort((one, other) => one.number - other.number); }
    return go(shown.indexOf(pair));
  }

  function apply() {
    const before = shown[current], controls = hound.controls();
    shown = pairs.filter((one) => controls.every((control) => hound.keeps(one.values, control)));
    hound.showFiltered();
    return go(Math.max(0, shown.indexOf(before)));
  }

  async function mark(pair, dropped) {
    try {
      const got = await fetch("/api/mark", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ number: pair.number, dropped }),
      });
      if (!got.ok) { throw new Error((await got.text()) || `the server answered ${got.status}`); }
    } catch (problem) {
      tell(`Nothing was changed: ${problem.message}`);
      return false;
    }
    pair.values.verdict = dropped ? "dropped" : "kept";
    return true;
  }

  async function toggle() {
    const pair = shown[current];
    if (!pair) { return; }
    const dropped = pair.values.verdict !== "dropped";
    if (!await mark(pair, dropped)) { return; }
    marks.push({ pair, dropped });
    tell(dropped ? `Dropped ${pair.id}. It is in the list of dropped pairs; u takes it back.` : `Took back ${pair.id}.`);
    showState();
  }

  async function undoLast() {
    const last = marks.pop();
    if (!last) { tell("There is nothing to undo."); return; }
    if (!await mark(last.pair, !last.dropped)) { marks.push(last); return; }
    tell(last.dropped ? `Undone: ${last.pair.id} is kept.` : `Undone: ${last.pair.id} is dropped again.`);
    await visit(last.pair);
  }

  let working = Promise.resolve();  // one change after the other, however fast the keys
  const inOrder = (work) => () => { working = working.then(work, work); };
  const actions = {
    next: inOrder(() => go(current + 1)), back: inOrder(() => go(current - 1)), drop: inOrder(toggle), undo: inOrder(undoLast),
    reset: inOrder(() => { hound.reset(); return apply(); }),
  };
  hound.listen(actions, {
    j: "next", n: "next", ArrowRight: "next", k: "back", p: "back", ArrowLeft: "back", d: "drop", u: "undo",
  });
  hound.bar.addEventListener("input", inOrder(apply));
  await apply();
};

hound.served().catch((problem) => { document.getElementById("toast").textContent = `The pairs could not be loaded: ${problem.message}`; });
