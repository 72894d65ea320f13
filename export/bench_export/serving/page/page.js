"use strict";
(() => {
  const SHOWN = 5, AT_ONCE = 4;
  const $ = (id) => document.getElementById(id);
  const make = (tag, className = "", text = "") => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text) element.textContent = text;
    return element;
  };
  const percent = (share, digits = 1) => (share * 100).toFixed(digits) + " %";
  const shownShare = (share) => (share > 0 && share < 0.0005 ? "< 0.1 %" : percent(share));
  let card = null;

  // the server

  async function ask(body) {
    let response;
    try {
      response = await fetch("predict", { method: "POST", body });
    } catch {
      throw new Error(await readable(body) ? "The server cannot be reached. Is it still running?" : "The file cannot be read.");
    }
    let answer = null;
    try { answer = await response.json(); } catch { /* said below */ }
    if (response.ok && answer) return answer;
    const error = answer && answer.error;
    for (const file of body.values()) if (error && error.reason.startsWith(`${file.name}: `)) error.reason = error.reason.slice(file.name.length + 2);
    throw new Error(error ? sentence(error.reason) + (error.hint ? " " + sentence(inWords(error)) : "") : `The server answered ${response.status}.`);
  }
  async function readable(form) {
    try {
      for (const file of form.values()) await file.slice(0, 1).arrayBuffer();
    } catch {
      return false;
    }
    return true;
  }
  // hints for programs say nothing to somebody who looks at a page
  const inWords = (error) => (/curl|--/.test(error.hint) ? "" : error.hint);
  const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "");

  // images

  const waiting = [];
  let running = 0, done = 0, failed = 0;

  function add(files) {
    for (const file of files) {
      const place = placeFor(file);
      $("results").prepend(place);
      waiting.push({ file, place });
    }
    tally();
    next();
  }

  function next() {
    while (running < AT_ONCE && waiting.length) {
      const { file, place } = waiting.shift();
      running += 1;
      predict(file, place).finally(() => { running -= 1; tally(); next(); });
    }
  }

  async function predict(file, place) {
    const form = new FormData();
    form.append("file", file, file.name || "pasted");
    const start = performance.now();
    try {
      const answer = await ask(form);
      show(place, answer.images[0], performance.now() - start, answer.timing_ms);
      done += 1;
    } catch (error) {
      failed += 1;
      place.classList.remove("waiting");
      place.querySelector(".answer").replaceWith(make("p", "error", error.message));
    }
  }

  function placeFor(file) {
    const place = make("article", "card result waiting");
    const thumb = make("div", "thumb");
    picture(thumb, file, file.name || "pasted image");
    const text = make("div", "text");
    text.append(make("p", "answer", "waiting"), make("p", "file quiet", file.name || "pasted image"));
    place.append(thumb, text);
    return place;
  }

  function picture(into, file, alt) {
    const image = make("img");
    image.alt = alt;
    image.src = URL.createObjectURL(file);
    image.onload = () => URL.revokeObjectURL(image.src);
    image.onerror = async () => into.replaceChildren((await drawn(file, alt)) || make("span", "", "no preview"));
    into.replaceChildren(image);
  }

  // PPM and PGM, which no browser shows and old datasets are full of
  async function drawn(file, alt) {
    try {
      const bytes = new Uint8Array(await file.arrayBuffer());
      const head = /^P([56])(?:\s+#[^\n]*)*\s+(\d+)\s+(\d+)\s+255\s/.exec(String.fromCharCode(...bytes.subarray(0, 200)));
      if (!head) return null;
      const [channels, width, height, start] = [head[1] === "6" ? 3 : 1, Number(head[2]), Number(head[3]), head[0].length];
      const canvas = make("canvas");
      [canvas.width, canvas.height] = [width, height];
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", alt);
      const pixels = new ImageData(width, height);
      for (let i = 0; i < width * height; i += 1) {
        for (let c = 0; c < 3; c += 1) pixels.data[4 * i + c] = bytes[start + channels * i + (channels === 3 ? c : 0)];
        pixels.data[4 * i + 3] = 255;
      }
      canvas.getContext("2d").putImageData(pixels, 0, 0);
      return canvas;
    } catch {
      return null;
    }
  }

  function show(place, image, elapsed, timing) {
    place.classList.remove("waiting");
    const rows = image.probabilities;
    place.querySelector(".answer").textContent = image.label;
    place.querySelector(".file").textContent += ` · ${elapsed.toFixed(0)} ms, of which the model ${timing.compute.toFixed(1)} ms`;
    const list = make("ol", "rows");
    rows.slice(0, SHOWN).forEach((row) => list.append(bar(row)));
    const text = place.querySelector(".text");
    text.append(list);
    if (rows.length <= SHOWN) return;
    const more = make("button", "", `Show all ${rows.length} classes`);
    more.type = "button";
    more.setAttribute("aria-expanded", "false");
    more.onclick = () => {
      const open = more.getAttribute("aria-expanded") === "true";
      list.replaceChildren(...rows.slice(0, open ? SHOWN : rows.length).map(bar));
      more.setAttribute("aria-expanded", String(!open));
      more.textContent = open ? `Show all ${rows.length} classes` : `Show the first ${SHOWN}`;
    };
    text.append(more);
  }

  function bar(row) {
    const item = make("li");
    const track = make("div", "track");
    const filled = make("div");
    filled.style.width = `${row.probability * 100}%`;
    track.append(filled);
    const name = make("span", "name", row.label);
    name.title = row.label;
    item.append(name, make("span", "value", shownShare(row.probability)), track);
    return item;
  }

  function tally() {
    const left = waiting.length + running;
    const parts = [`${done} ${done === 1 ? "image" : "images"}`];
    if (failed) parts.push(`${failed} failed`);
    if (left) parts.push(`${left} to go`);
    $("tally").textContent = parts.join(", ");
    $("tools").hidden = !(done || failed || left);
  }

  // pairs

  const sides = { first: null, second: null };
  let asked = 0;

  function setSide(side, file) {
    sides[side] = file;
    const zone = $(`zone-${side}`);
    const view = zone.querySelector(".view");
    picture(view, file, `${side} image: ${file.name || "pasted"}`);
    view.hidden = false;
    zone.classList.add("filled");
    zone.querySelector(".name").textContent = file.name || "pasted image";
    $("tools").hidden = false;
    if (sides.first && sides.second) compare();
  }

  function addPair(files, side) {
    const images = [...files];
    if (!images.length) return;
    if (images.length > 1) {
      setSide("first", images[0]);
      setSide("second", images[1]);
    } else {
      setSide(side || (sides.first && !sides.second ? "second" : "first"), images[0]);
    }
  }

  async function compare() {
    const number = ++asked;
    const form = new FormData();
    form.append("first", sides.first, sides.first.name || "first");
    form.append("second", sides.second, sides.second.name || "second");
    const box = $("verdict");
    box.hidden = false;
    box.replaceChildren(make("p", "answer quiet", "comparing"));
    try {
      const answer = await ask(form);
      if (number === asked) box.replaceChildren(...verdict(answer.pairs[0]));
    } catch (error) {
      if (number === asked) box.replaceChildren(make("p", "error", error.message));
    }
  }

  function verdict(pair) {
    const same = pair.decision === "same";
    const [low, high] = range(pair);
    const at = (value) => Math.min(100, Math.max(0, ((value - low) / (high - low)) * 100));
    const scale = make("div", "scale");
    scale.setAttribute("role", "img");
    scale.setAttribute("aria-label", `score ${pair.score.toFixed(3)}, threshold ${pair.threshold.toFixed(3)}`);
    const below = make("div", "low"), above = make("div", "high"), threshold = make("div", "threshold"), point = make("div", "point");
    below.style.width = threshold.style.left = `${at(pair.threshold)}%`;
    above.style.left = `${at(pair.threshold)}%`;
    point.style.left = `${at(pair.score)}%`;
    const score = make("span", "score", pair.score.toFixed(3)), mark = make("span", "mark", `threshold ${pair.threshold.toFixed(3)}`);
    score.style.left = `${Math.min(94, Math.max(6, at(pair.score)))}%`;
    mark.style.left = `${Math.min(82, Math.max(18, at(pair.threshold)))}%`;
    scale.append(below, above, threshold, point, score, mark);
    const ends = make("div", "ends quiet");
    ends.append(make("span", "", "different"), make("span", "", "same"));
    const words = `The score ${pair.score.toFixed(3)} is ${same ? "at or above" : "below"} the threshold ${pair.threshold.toFixed(3)}.`;
    return [make("p", "answer", same ? "The same" : "Different"), make("p", "quiet", words), scale, ends];
  }

  // scores are probabilities as a rule; distances that are turned round may leave 0..1
  function range(pair) {
    const values = [0, 1, pair.score, pair.threshold];
    return [Math.min(...values), Math.max(...values)];
  }

  // dropping, picking, pasting

  function listen(zone, take) {
    let depth = 0;
    const over = (inside) => zone.classList.toggle("over", inside);
    zone.addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; over(true); });
    zone.addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) over(false); });
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      depth = 0;
      over(false);
      take(filesOf(event.dataTransfer));
    });
    const input = zone.querySelector("input");
    input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
  }
  const filesOf = (transfer) => [...((transfer && transfer.files) || [])];

  function start() {
    const pairs = card.task === "verification";
    const take = pairs ? addPair : add;
    $(pairs ? "double" : "single").hidden = false;
    if (pairs) {
      for (const side of ["first", "second"]) listen($(`zone-${side}`), (files) => addPair(files, side));
    } else {
      listen($("zone"), add);
    }
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => { event.preventDefault(); take(filesOf(event.dataTransfer)); });
    document.addEventListener("paste", (event) => take(filesOf(event.clipboardData)));
    $("clear").onclick = () => {
      waiting.length = 0;
      done = failed = 0;
      $("results").replaceChildren();
      $("tools").hidden = true;
      if (pairs) clearPair();
      $(pairs ? "file-first" : "files").focus();
    };
  }

  function clearPair() {
    asked += 1;
    $("verdict").hidden = true;
    for (const side of ["first", "second"]) {
      sides[side] = null;
      const zone = $(`zone-${side}`);
      zone.classList.remove("filled");
      zone.querySelector(".view").hidden = true;
      zone.querySelector(".name").textContent = "drop, pick or paste";
    }
  }

  // classes and card

  const NAMES = {
    accuracy: "accuracy", balanced_accuracy: "balanced accuracy", macro_f1: "macro F1", auroc: "AUROC", eer: "equal error rate",
    log_loss: "log loss", ece: "calibration error",
  };
  const IN_PERCENT = new Set(["accuracy", "balanced_accuracy", "eer"]);

  function showClasses() {
    if (card.task === "verification") return;
    const counts = ((card.dataset || {}).counts || {}).train || {};
    $("classes-box").hidden = false;
    $("class-count").textContent = `(${card.classes.length})`;
    const items = card.classes.map((name, index) => {
      const item = make("li");
      item.append(make("span", "number", String(index)), make("span", "name", name));
      if (counts[name]) item.append(make("span", "count", `${counts[name].toLocaleString("en")} trained on`));
      return item;
    });
    $("classes").append(...items);
    $("search").hidden = items.length < 10;
    $("search").addEventListener("input", () => {
      const words = $("search").value.toLowerCase().split(/\s+/);
      items.forEach((item, index) => {
        const text = `${index} ${card.classes[index].toLowerCase()}`;
        item.hidden = !words.every((word) => text.includes(word));
      });
      $("no-class").hidden = items.some((item) => !item.hidden);
    });
  }

  function showCard() {
    const box = $("card");
    const how = card.preprocessing, server = card.server;
    const list = (numbers) => numbers.map((number) => Number(number.toFixed(3))).join(", ");
    box.append(make("p", `gate ${gateClass()}`, gateWords()));
    box.append(...metrics());
    box.append(...section("Model", [
      ["task", card.task === "verification" ? "are two images of the same?" : `one of ${card.classes.length} classes`],
      ["precision", card.precision], ["parameters", whole(card.metrics.parameters)], ["file", `${server.file}, ${server.megabytes} MB`],
      ["threshold", card.threshold === null ? "" : card.threshold.toFixed(4)],
    ]));
    box.append(...section("Input", [
      ["size", `${how.size[1]} × ${how.size[0]} pixels, ${how.channels === 1 ? "grey" : "RGB"}`],
      ["resize", `${how.resize}, ${how.filter}`], ["mean", list(how.mean)], ["deviation", list(how.std)],
    ]));
    box.append(...section("Origin", [
      ["run", card.run], ["experiment", card.experiment], ["dataset", (card.dataset || {}).name], ["exported", (card.created || "").replace("T", " ").slice(0, 16)],
      ["commit", ((card.git || {}).commit || "").slice(0, 12)],
    ]));
    box.append(...section("Server", [
      ["runs on", server.providers.map((name) => name.replace("ExecutionProvider", "")).join(", ")],
      ["batch", `up to ${server.max_batch}`], ["limits", `${server.max_megabytes} MB, ${server.max_megapixels} megapixels`],
    ]));
    if (card.recipe) {
      const recipe = make("details", "inner");
      recipe.append(make("summary", "", "Recipe"), make("pre", "", card.recipe));
      box.append(recipe);
    }
    $("card-box").hidden = false;
  }

  function section(title, rows) {
    const filled = rows.filter(([, value]) => value);
    if (!filled.length) return [];
    const list = make("dl");
    for (const [name, value] of filled) list.append(make("dt", "", name), make("dd", "", value));
    return [make("h3", "", title), list];
  }

  function metrics() {
    const where = Object.keys(card.metrics).some((key) => key.startsWith("test_")) ? "test" : "val";
    const rows = [];
    for (const [key, name] of Object.entries(NAMES)) {
      const value = card.metrics[`${where}_${key}`];
      if (typeof value !== "number") continue;
      const low = card.metrics[`${where}_${key}_low`], high = card.metrics[`${where}_${key}_high`];
      const shares = IN_PERCENT.has(key);
      const text = (number) => (shares ? (number * 100).toFixed(2) : number.toFixed(4));
      const interval = typeof low === "number" ? ` [${text(low)}, ${text(high)}]` : "";
      rows.push([name, text(value) + (shares ? " %" : "") + interval]);
    }
    return section(where === "test" ? "Metrics on the test images [95 %]" : "Metrics on the validation images [95 %]", rows);
  }

  const whole = (number) => (typeof number === "number" ? Math.round(number).toLocaleString("en") : "");
  const gateClass = () => (card.gate ? (card.gate.passed ? "passed" : "missed") : "");
  function gateWords() {
    if (!card.gate) return "No gate report: it was not compared with the trained model.";
    if (card.gate.passed) return "Gate passed: it answers as the trained model does.";
    return "Gate missed: " + ((card.gate.reasons || []).join("; ") || "it does not answer as the trained model does") + ".";
  }

  async function load() {
    try {
      card = await (await fetch("card")).json();
    } catch {
      $("title").textContent = "No model";
      $("problem").textContent = "The server cannot be reached. Is it still running?";
      $("problem").hidden = false;
      return;
    }
    const name = card.experiment || card.server.file;
    document.title = `${name} · visionbench`;
    $("title").textContent = name;
    const kind = card.task === "verification" ? "compares two images" : `tells ${card.classes.length} classes apart`;
    $("subtitle").textContent = [kind, card.precision, card.run].filter(Boolean).join(" · ");
    $("limits").textContent = `Up to ${card.server.max_megabytes} MB and ${card.server.max_megapixels} megapixels each.`;
    showClasses();
    showCard();
    if (matchMedia("(max-width: 860px)").matches) for (const box of document.querySelectorAll("aside > details")) box.open = false;
    start();
    document.body.dataset.ready = "yes";
  }
  load();
})();
