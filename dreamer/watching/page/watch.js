// The page: shows what the session tells, and sends it what a person chooses. No state of its own
// but the curves so far and the dream that is running ahead.
"use strict";

const BLUE = "#0072b2", VERMILION = "#d55e00", GREEN = "#009e73", PURPLE = "#8a4a73";
const INK = "#1a1a1a", DIM = "#555", LINE = "#d5d8dd", PANEL = "#f4f5f7";
const BEFORE = 150;  // moments that the curves show before now
const KEPT = 8;  // earlier dreams whose curves stay
const FASTER = 3;  // a dream runs ahead so many times as fast as the episode
const FONT = '12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif';

const by = id => document.getElementById(id);
let state = null, socket = null, sides = [], dirty = true, cursor = null, held = new Set();
let noticeTimer = 0, recording = false;

// ------------------------------------------------------------------ messages

function connect() {
  socket = new WebSocket(new URL("socket", location.href).href.replace(/^http/, "ws"));
  socket.binaryType = "arraybuffer";
  socket.onmessage = event => take(decode(event.data));
  socket.onclose = () => {
    by("mode").textContent = "Not connected: the program has ended, or is busy. Trying again…";
    setTimeout(connect, 1500);
  };
}

function send(command) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(command));
}

// The header's length (4 bytes, little-endian), the header as JSON, then the arrays it lists.
function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  header.arrays = header.arrays.reduce((found, [name, dtype, shape]) => {
    const size = shape.reduce((a, b) => a * b, 1), wide = dtype === "<f4" ? 4 : 1;
    const bytes = buffer.slice(found.at, found.at += size * wide);
    found.all[name] = {shape, data: wide === 4 ? new Float32Array(bytes) : new Uint8Array(bytes)};
    return found;
  }, {at: 4 + length, all: {}}).all;
  return header;
}

const takes = {
  state(message) {
    state = message;
    if (sides.length !== state.sides.length) makeSides();
    if (state.dreaming === null) for (const side of sides) side.dreamt = null;
    showState();
  },
  history(message) {
    message.sides.forEach((told, i) => {
      const side = sides[i];
      side.clear(told.time);
      for (const key of ["reward", "predicted", "value", "kl"]) {
        side.series[key] = Array.from(message.arrays[`${i}/${key}`].data);
      }
    });
  },
  moment(message) {
    message.sides.forEach((told, i) => sides[i].addMoment(told, arraysOf(message, i)));
    if (cursor !== null && !sides[0].has(cursor)) cursor = null;
  },
  dream(message) {
    message.sides.forEach((told, i) => sides[i].addDream(told.time, arraysOf(message, i)));
  },
  truth(message) {  // the moment that a dream begins with
    message.sides.forEach((told, i) => sides[i].enter(told, arraysOf(message, i)));
  },
  dreamt(message) {
    message.sides.forEach((told, i) => sides[i].addDreamt(message, told, arraysOf(message, i)));
  },
  notice(message) { showNotice(message.text); },
  recording(message) {
    recording = message.on;
    by("record").textContent = recording ? "Stop recording" : "Record";
    by("record").classList.toggle("on", recording);
    by("recording").hidden = recording || !message.name;
    if (message.name) {
      by("recording").download = message.name;
      showNotice("The recording is ready: save it with the link beside the button.");
    }
  },
};

function take(message) {
  takes[message.kind]?.(message);
  dirty = true;
}

function arraysOf(message, i) {
  const found = {};
  for (const [name, array] of Object.entries(message.arrays)) {
    if (name.startsWith(`${i}/`)) found[name.slice(name.indexOf("/") + 1)] = array;
  }
  return found;
}

function showNotice(text) {
  by("notice").textContent = text;
  by("notice").hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { by("notice").hidden = true; }, 12000);
}

// --------------------------------------------------------------------- sides

// One agent: its curves, its newest moment, and its dreams.
class Side {
  constructor(root, index) {
    this.root = root;
    this.index = index;
    this.find = selector => root.querySelector(selector);
    this.clear(0);
    this.checkpoint = this.find(".checkpoint");
    this.checkpoint.onchange = () =>
      send({do: "checkpoint", side: index, which: this.checkpoint.value});
    const plots = this.find(".plots");
    plots.onclick = event => {
      if (this.facts?.model) send({do: "dream", time: this.timeAt(event.offsetX)});
    };
    plots.onkeydown = event => this.choose(event);
    plots.onblur = () => { cursor = null; dirty = true; };
  }

  get facts() { return state.sides[this.index]; }

  clear(first) {
    this.first = first;  // the time of the first moment in the series
    this.series = {reward: [], predicted: [], value: [], kl: []};
    this.dreams = [];  // those that ran ahead, the newest last
    this.now = this.arrays = this.dreamt = null;
    this.ranges = [];
  }

  has(time) { return time >= this.first && time < this.first + this.series.reward.length; }

  addMoment(told, arrays) {
    if (told.time === 0 || told.time < this.first) this.clear(told.time);
    for (const [key, values] of Object.entries(this.series)) {
      values.length = Math.min(values.length, told.time - this.first);
      while (values.length < told.time - this.first) values.push(NaN);
      values.push(told[key] ?? NaN);
    }
    this.now = told;
    this.arrays = arrays;
    this.learnRanges(arrays.vector, arrays.model_vector);
  }

  addDream(time, arrays) {
    const [samples, steps] = arrays.reward.shape;
    this.dreams.push({time, samples, steps, arrays, began: performance.now()});
    this.dreams = this.dreams.slice(-KEPT);
    if (!state.playing) this.dreams = this.dreams.slice(-1);
  }

  enter(told, arrays) {
    this.dreamt = {time: told.time, step: 0, told, reward: [], value: [], samples: state.samples,
      arrays: {picture: null, truth: arrays.picture, true_vector: arrays.vector,
        action: arrays.action, probabilities: arrays.probabilities}, came: true};
  }

  addDreamt(message, told, arrays) {
    if (!this.dreamt || this.dreamt.time !== message.time || message.step <= this.dreamt.step) {
      this.dreamt = {time: message.time, reward: [], value: []};
    }
    const dreamt = this.dreamt;
    Object.assign(dreamt, {step: message.step, arrays, came: told.came,
      samples: arrays.reward.shape[0]});
    dreamt.reward[message.step - 1] = Array.from(arrays.reward.data);
    dreamt.value[message.step - 1] = arrays.value ? Array.from(arrays.value.data) : [];
  }

  learnRanges(...vectors) {
    for (const vector of vectors.filter(Boolean)) {
      vector.data.forEach((x, i) => {
        const [low, high] = this.ranges[i] ?? [x, x];
        this.ranges[i] = [Math.min(low, x), Math.max(high, x)];
      });
    }
  }

  // The first and the last time that the curves show.
  span() {
    const now = this.now ? this.now.time : 0;
    if (this.dreamt) {
      const end = this.dreamt.time + Math.max(state.ahead, this.dreamt.step + 5);
      return [Math.max(this.first, end - BEFORE - state.ahead), end];
    }
    const shown = cursor === null ? now : Math.min(now, Math.max(cursor + 30, BEFORE));
    const begin = Math.max(this.first, shown - BEFORE);
    return [begin, Math.max(shown, begin + 30) + (this.facts.model ? state.ahead : 5)];
  }

  timeAt(x) {
    const [begin, end] = this.span(), width = this.find(".curves").clientWidth;
    const time = Math.round(begin + (x - LEFT) / (width - LEFT - RIGHT) * (end - begin));
    return Math.max(this.first, Math.min(time, this.now ? this.now.time : 0));
  }

  choose(event) {
    const moves = {ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20};
    if (event.key === "Enter" && this.facts.model) {
      send({do: "dream", time: cursor ?? this.now.time});
    } else if (event.key in moves && state.dreaming === null && this.now) {
      const time = (cursor ?? this.now.time) + moves[event.key];
      cursor = Math.max(this.first, Math.min(time, this.now.time));
    } else return;
    event.preventDefault();
    event.stopPropagation();
    dirty = true;
  }
}

function makeSides() {
  by("sides").replaceChildren();
  by("sides").classList.toggle("two", state.sides.length > 1);
  sides = state.sides.map((_, i) => {
    const root = by("side").content.cloneNode(true).firstElementChild;
    by("sides").append(root);
    return new Side(root, i);
  });
}

// ------------------------------------------------------------------ controls

function fill(select, options, chosen) {
  const wanted = JSON.stringify(options);
  if (select.dataset.options !== wanted) {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    select.dataset.options = wanted;
  }
  if (select.value !== String(chosen)) select.value = chosen;
}

const count = number => number.toLocaleString("en");

function checkpointOptions(facts) {
  return Object.entries(facts.checkpoints).map(([name, step]) =>
    [name, name === String(step) ? `step ${count(step)}` : `${name} (step ${count(step)})`]);
}

function showState() {
  const dreaming = state.dreaming !== null, first = state.sides[0];
  const models = state.sides.every(facts => facts.model);
  document.body.classList.toggle("dreaming", dreaming);
  document.title = `${first.task}: watch`;
  by("title").textContent = first.task;
  by("play").textContent = state.playing ? "Pause" : "Play";
  fill(by("speed"), state.speeds.map(n => [n, `${n} steps a second`]), state.speed);
  if (document.activeElement !== by("seed")) by("seed").value = state.seed;
  by("noise").checked = state.noisy;
  by("samples").value = state.samples;
  by("samples").disabled = !models;
  by("task-field").hidden = state.tasks.length < 2;
  fill(by("task"), state.tasks.map(name => [name, name]), first.task);
  const options = checkpointOptions(first);
  by("compare-field").hidden = !state.can_compare || options.length < 1;
  fill(by("compare"), [["", "nothing"], ...options], state.compared);
  by("failure").hidden = !state.failure;
  if (state.failure) {
    by("failure-what").textContent = state.failure.what;
    by("failure-advice").textContent = `Advice: ${state.failure.advice}.`;
  }
  by("enter").hidden = dreaming;
  by("enter").disabled = !models;
  by("truth").hidden = by("leave").hidden = by("steering").hidden = !dreaming;
  by("step").disabled = by("play").disabled = Boolean(state.failure);
  makeActions(first);
  showSteering(first);
  sides.forEach((side, i) => {
    const facts = state.sides[i], place = facts.run.split("/").slice(-3).join("/");
    side.find("h2").textContent = `${place}, ${facts.agent}, trained for ${count(facts.step)} steps`;
    const own = checkpointOptions(facts);
    if (!own.some(([name]) => name === facts.which)) own.unshift([facts.which, facts.which]);
    fill(side.checkpoint, own, facts.which);
    side.find(".note").hidden = !facts.note;
    side.find(".note").textContent = facts.note;
    side.find(".truth").hidden = !facts.picture;
    side.find(".model").hidden = side.find(".dream").hidden = facts.decodes !== "picture";
    side.find(".vector").hidden = facts.decodes === "picture" || !facts.elements.length;
  });
}

// A slider for each continuous action; a button for each separate one.
function makeActions(facts) {
  const box = by("actions"), key = JSON.stringify([facts.discrete, facts.parts, facts.actions]);
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  box.replaceChildren(...facts.actions.map((name, i) => {
    if (facts.discrete) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = i < 9 && !facts.parts.length ? `${i + 1}: ${name}` : name;
      button.onclick = () => choose(i);
      return button;
    }
    const label = document.createElement("label"), input = document.createElement("input");
    const output = document.createElement("output");
    Object.assign(input, {type: "range", min: -1, max: 1, step: 0.05, value: 0});
    input.oninput = () => { output.value = (+input.value).toFixed(2); steer(sliders()); };
    output.value = "0.00";
    label.append(name, input, output);
    return label;
  }));
}

const sliders = () => [...by("actions").querySelectorAll("input")].map(input => +input.value);

function showSteering(facts) {
  const hand = state.by_hand;
  by("by-actor").checked = hand === null;
  by("by-hand").checked = hand !== null;
  if (facts.discrete) {
    [...by("actions").children].forEach((button, i) => {
      button.classList.toggle("on", hand !== null && hand[i] === 1);
      button.setAttribute("aria-pressed", hand !== null && hand[i] === 1);
    });
  } else if (hand !== null) {
    [...by("actions").children].forEach((label, i) => {
      const [input, output] = label.querySelectorAll("input, output");
      if (document.activeElement !== input) input.value = hand[i];
      output.value = (+input.value).toFixed(2);
    });
  }
}

const steer = action => send({do: "steer", action});

// Chooses one of separate actions; of several groups, in its group.
function choose(index) {
  const facts = state.sides[0], sizes = facts.parts.length ? facts.parts : [facts.actions.length];
  const action = state.by_hand ? [...state.by_hand] : neutral();
  let begin = 0;
  for (const size of sizes) {
    if (index >= begin && index < begin + size) {
      action.fill(0, begin, begin + size);
      action[index] = 1;
    }
    begin += size;
  }
  state.by_hand = action;
  steer(action);
}

// All sliders in the middle; of separate actions, each group's first.
function neutral() {
  const facts = state.sides[0];
  if (!facts.discrete) return facts.actions.map(() => 0);
  const action = facts.actions.map(() => 0);
  let begin = 0;
  for (const size of facts.parts.length ? facts.parts : [facts.actions.length]) {
    action[begin] = 1;
    begin += size;
  }
  return action;
}

// Arrow keys hold the first two continuous actions at their ends.
function steerByKeys() {
  const action = state.by_hand ? [...state.by_hand] : neutral();
  action[0] = held.has("ArrowRight") - held.has("ArrowLeft");
  if (action.length > 1) action[1] = held.has("ArrowUp") - held.has("ArrowDown");
  state.by_hand = action;
  steer(action);
}

function onKey(event) {
  if (!state || event.ctrlKey || event.altKey || event.metaKey) return;
  const typed = event.target.matches("input[type=number], select, input[type=range]");
  const button = event.target.matches("button, a, summary, input");
  if (typed && event.key !== "Escape") return;
  const dreaming = state.dreaming !== null, facts = state.sides[0];
  const arrow = event.key.startsWith("Arrow");
  if (event.key === " " && !button) send({do: "play", on: !state.playing});
  else if (event.key === ".") send({do: "step"});
  else if (event.key === "n") send({do: "episode"});
  else if (event.key === "d" && !dreaming) by("enter").click();
  else if (event.key === "b" && dreaming) send({do: "truth"});
  else if (event.key === "Escape" && dreaming) send({do: "leave"});
  else if (event.key === "a" && dreaming) steer(null);
  else if (dreaming && !facts.discrete && arrow && !event.target.matches("input")) {
    if (!held.has(event.key)) { held.add(event.key); steerByKeys(); }
  } else if (dreaming && facts.discrete && /^[1-9]$/.test(event.key)
    && +event.key <= facts.actions.length) choose(event.key - 1);
  else return;
  event.preventDefault();
}

function wire() {
  by("play").onclick = () => send({do: "play", on: !state.playing});
  by("step").onclick = () => send({do: "step"});
  by("new").onclick = by("failure-again").onclick = () => send({do: "episode"});
  by("again").onclick = () => send({do: "episode", seed: Math.round(+by("seed").value)});
  by("seed").onkeydown = event => { if (event.key === "Enter") by("again").click(); };
  by("speed").onchange = () => send({do: "speed", value: +by("speed").value});
  by("noise").onchange = () => send({do: "noise", on: by("noise").checked});
  by("samples").onchange = () => send({do: "samples", value: +by("samples").value});
  by("task").onchange = () => send({do: "task", task: by("task").value});
  by("compare").onchange = () => send({do: "compare", which: by("compare").value});
  by("enter").onclick = () => send({do: "dream", time: cursor ?? sides[0]?.now?.time ?? 0});
  by("truth").onclick = () => send({do: "truth"});
  by("leave").onclick = () => send({do: "leave"});
  by("by-actor").onchange = () => steer(null);
  by("by-hand").onchange = () => steer(state.by_hand ?? neutral());
  by("record").onclick = () =>
    send({do: "record", on: !recording, ending: by("ending").value});
  document.addEventListener("keydown", onKey);
  document.addEventListener("keyup", event => {
    if (held.delete(event.key) && state?.dreaming !== null) steerByKeys();
  });
  window.addEventListener("blur", () => held.clear());
  window.addEventListener("resize", () => { dirty = true; });
}

// ------------------------------------------------------------------- drawing

const LEFT = 58, RIGHT = 12;  // pixels beside the curves

function frame() {
  const runs = state && state.dreaming === null && sides.some(side => side.dreams.length);
  if (state && sides.length && (dirty || runs)) {
    dirty = false;
    showMode();
    for (const side of sides) drawSide(side);
  }
  requestAnimationFrame(frame);
}

function showMode() {
  const side = sides[0], now = side.now;
  let text = "Loading: the first step takes some seconds…";
  if (state.failure) text = "Stopped: the environment has failed.";
  else if (state.dreaming !== null) {
    const who = state.by_hand === null ? "the agent acts" : "you act";
    text = `Dreaming: step ${side.dreamt?.step ?? 0} from moment ${state.dreaming}; ${who}` +
      (state.playing ? "" : "; paused");
  } else if (now) {
    text = `Acting: moment ${now.time} of the episode, return ${now.return.toFixed(1)}` +
      (now.over ? "; the episode is over" : state.playing ? "" : "; paused");
  }
  if (by("mode").textContent !== text) by("mode").textContent = text;
}

// The canvas's context, with pixels as fine as the screen's, and its size.
function prepare(canvas, height) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth;
  if (height) canvas.style.height = `${height}px`;
  const tall = height ?? canvas.clientHeight;
  const [w, h] = [Math.round(width * scale), Math.round(tall * scale)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, {width: w, height: h});
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, tall);
  context.font = FONT;
  context.lineJoin = "round";
  return [context, width, tall];
}

// Draws picture `index` of uint8 [..., H, W, C].
function paint(canvas, array, index = 0) {
  if (!array) {
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    return;
  }
  const [h, w, c] = array.shape.slice(-3), start = index * h * w * c;
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, {width: w, height: h});
  canvas.classList.toggle("smooth", w > 100);
  const image = new ImageData(w, h);
  for (let i = 0, from = start; i < h * w * 4; i += 4, from += c) {
    image.data[i] = array.data[from];
    image.data[i + 1] = array.data[from + (c > 1 ? 1 : 0)];
    image.data[i + 2] = array.data[from + (c > 2 ? 2 : 0)];
    image.data[i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function caption(side, selector, strong, text) {
  const caption = side.find(`${selector} figcaption`), wanted = `${strong}|${text}`;
  if (caption.dataset.text === wanted) return;
  caption.dataset.text = wanted;
  const bold = document.createElement("b");
  bold.textContent = strong;
  caption.replaceChildren(bold, ` ${text}`);
}

function drawSide(side) {
  const facts = side.facts, dreamt = side.dreamt;
  if (dreamt) {
    const came = dreamt.came ? dreamt.arrays.truth : null;
    if (came || !dreamt.came) paint(side.find(".truth canvas"), came);
    caption(side, ".truth", "What then came",
      dreamt.came ? `at moment ${dreamt.time + dreamt.step}` : "is not known: it never was acted");
    side.find(".model").hidden = true;
    if (dreamt.arrays.picture) drawSamples(side, dreamt.arrays.picture, dreamt.samples, 1, 0);
    caption(side, ".dream", "The dream", `${dreamt.step} steps after moment ${dreamt.time}`);
    drawBars(side, dreamt.arrays, dreamt.step > 0);
    drawVector(side, dreamt.arrays.true_vector, null, dreamt.arrays.vector, dreamt.samples, 1, 0);
  } else if (side.now) {
    side.find(".model").hidden = facts.decodes !== "picture";
    paint(side.find(".truth canvas"), side.arrays.picture);
    caption(side, ".truth", "Environment", `moment ${side.now.time}`);
    paint(side.find(".model canvas"), side.arrays.model_picture);
    caption(side, ".model", "Reconstruction", "what the model makes of it");
    const dream = side.dreams.at(-1), step = dream ? stepOf(dream) : 0;
    if (dream?.arrays.picture) {
      drawSamples(side, dream.arrays.picture, dream.samples, dream.steps, step);
      caption(side, ".dream", "Imagined", `${step + 1} steps ahead of moment ${dream.time}`);
    }
    drawBars(side, side.arrays, false);
    drawVector(side, side.arrays.vector, side.arrays.model_vector, dream?.arrays.vector,
      dream?.samples, dream?.steps, step);
  }
  drawCurves(side);
}

// The step that a dream has reached; it begins again and again.
function stepOf(dream) {
  const speed = Math.max(15, FASTER * state.speed);
  return Math.floor((performance.now() - dream.began) / 1000 * speed) % dream.steps;
}

function drawSamples(side, pictures, samples, steps, step) {
  const box = side.find(".samples");
  box.classList.toggle("four", samples > 1);
  while (box.children.length < samples) box.append(document.createElement("canvas"));
  while (box.children.length > samples) box.lastElementChild.remove();
  for (let n = 0; n < samples; n++) paint(box.children[n], pictures, n * steps + step);
}

// Each action as a bar: from -1 to 1, or its probability, with a mark at the one that was taken.
function drawBars(side, arrays, imagined) {
  const action = arrays.action;
  if (!action) return;
  const facts = side.facts, n = facts.actions.length, row = n > 12 ? 15 : 19;
  const [g, width] = prepare(side.find(".bars"), n * row + 6);
  const values = facts.discrete ? arrays.probabilities ?? action : action;
  const text = Math.min(110, width * 0.42), number = 44, room = width - text - number - 6;
  g.textBaseline = "middle";
  for (let i = 0; i < n; i++) {
    const y = 3 + i * row, middle = y + row / 2, value = values.data[i];
    const taken = facts.discrete && action.data[i] > 0.5;
    g.fillStyle = INK;
    g.textAlign = "left";
    g.font = taken ? `bold ${FONT}` : FONT;
    g.fillText((taken ? "▸ " : "") + facts.actions[i], 0, middle, text - 4);
    g.fillStyle = PANEL;
    g.fillRect(text, y + 2, room, row - 4);
    g.fillStyle = imagined ? VERMILION : BLUE;
    const origin = facts.discrete ? text : text + room / 2;
    const length = facts.discrete ? value * room : value * room / 2;
    g.fillRect(Math.min(origin, origin + length), y + 2, Math.abs(length), row - 4);
    if (!facts.discrete) { g.fillStyle = INK; g.fillRect(origin - 0.5, y, 1, row); }
    g.fillStyle = INK;
    g.textAlign = "right";
    g.fillText(value.toFixed(2), width, middle);
  }
  const kind = facts.discrete ? "probabilities; ▸ is taken" : "from −1 to 1";
  caption(side, ".acts", imagined ? "Imagined action" : "Action", kind);
}

// Observations of an agent from states: truth, reconstruction and dream on one line each.
function drawVector(side, truth, model, dream, samples, steps, step) {
  const canvas = side.find(".vector"), names = side.facts.elements;
  if (canvas.hidden) return;
  const n = names.length, columns = canvas.clientWidth > 800 ? 3 : canvas.clientWidth > 520 ? 2 : 1;
  const rows = Math.ceil(n / columns), row = 22;
  const [g, width] = prepare(canvas, rows * row + 26);
  const cell = width / columns, text = Math.min(130, cell * 0.42);
  if (dream) side.learnRanges({data: dream.data.subarray(0, n)});
  g.textBaseline = "middle";
  g.textAlign = "left";
  for (let i = 0; i < n; i++) {
    const x = Math.floor(i / rows) * cell, y = (i % rows) * row + row / 2;
    const [low, high] = side.ranges[i] ?? [0, 1], room = cell - text - 30;
    const at = v => x + text + 8 + room * Math.min(1, Math.max(0, (v - low) / (high - low || 1)));
    g.fillStyle = INK;
    g.fillText(names[i], x, y, text - 4);
    g.fillStyle = LINE;
    g.fillRect(x + text + 8, y - 0.5, room, 1);
    if (dream) {
      for (let s = 0; s < samples; s++) {
        diamond(g, at(dream.data[(s * steps + step) * n + i]), y, VERMILION);
      }
    }
    if (model) ring(g, at(model.data[i]), y, PURPLE);
    if (truth) disc(g, at(truth.data[i]), y, BLUE);
  }
  const y = rows * row + 13;
  disc(g, 8, y, BLUE);
  g.fillStyle = DIM;
  g.fillText("came", 18, y);
  ring(g, 74, y, PURPLE);
  g.fillStyle = DIM;
  g.fillText("reconstructed", 86, y);
  diamond(g, 190, y, VERMILION);
  g.fillStyle = DIM;
  g.fillText("imagined", 202, y);
}

function disc(g, x, y, colour) {
  g.fillStyle = colour;
  g.beginPath();
  g.arc(x, y, 4, 0, 7);
  g.fill();
}

function ring(g, x, y, colour) {
  g.strokeStyle = colour;
  g.lineWidth = 2;
  g.beginPath();
  g.arc(x, y, 6.5, 0, 7);
  g.stroke();
}

function diamond(g, x, y, colour) {
  g.strokeStyle = colour;
  g.lineWidth = 2;
  g.beginPath();
  for (const [dx, dy] of [[0, -6], [6, 0], [0, 6], [-6, 0]]) g.lineTo(x + dx, y + dy);
  g.closePath();
  g.stroke();
}

// -------------------------------------------------------------------- curves

function drawCurves(side) {
  const canvas = side.find(".curves"), [g, width, height] = prepare(canvas);
  const facts = side.facts, [begin, end] = side.span();
  const panels = [["reward", "Reward", 1]];
  if (facts.value) panels.push(["value", "Value", 1.25]);
  if (facts.kl) panels.push(["kl", "KL, nats", 0.7]);
  const shares = panels.reduce((sum, panel) => sum + panel[2], 0), axis = 20, gap = 10;
  const room = height - axis - gap * panels.length;
  const x = time => LEFT + (time - begin) / (end - begin) * (width - LEFT - RIGHT);
  let top = gap;
  for (const [key, name, share] of panels) {
    const tall = room * share / shares;
    drawPanel(g, side, key, name, {x, begin, end, top, tall, width});
    top += tall + gap;
  }
  drawTimes(g, side, x, begin, end, height, width);
  const plots = side.find(".plots"), now = side.now?.time ?? 0;
  plots.setAttribute("aria-valuemax", now);
  plots.setAttribute("aria-valuenow", cursor ?? now);
  plots.setAttribute("aria-valuetext", `moment ${cursor ?? now} of ${now}; Enter dreams from here`);
}

// The curves of a panel: {line: values by time, dashes, colour, width, from}.
function linesOf(side, key) {
  const lines = [], series = side.series;
  if (side.dreamt) {
    for (let s = 0; s < side.dreamt.samples; s++) {
      const values = side.dreamt[key]?.map(step => step[s]) ?? [];
      lines.push({values, from: side.dreamt.time + 1, colour: VERMILION, dashes: [6, 4], wide: 1.8});
    }
  } else if (key !== "kl") {
    side.dreams.forEach((dream, d) => {
      const array = dream.arrays[key];
      if (!array) return;
      for (let s = 0; s < dream.samples; s++) {
        const values = array.data.subarray(s * dream.steps, (s + 1) * dream.steps);
        const newest = d === side.dreams.length - 1;
        lines.push({values, from: dream.time + 1, colour: VERMILION, dashes: [6, 4],
          wide: newest ? 2 : 1.2, faint: !newest});
      }
    });
  }
  if (key === "reward" && side.facts.model) {
    lines.push({values: series.predicted, from: side.first, colour: PURPLE, dashes: [2, 3],
      wide: 1.8});
  }
  lines.push({values: series[key], from: side.first, colour: BLUE, dashes: [], wide: 2});
  return lines;
}

function drawPanel(g, side, key, name, at) {
  const {x, begin, end, top, tall, width} = at, lines = linesOf(side, key);
  let low = Infinity, high = -Infinity;
  for (const {values, from} of lines) {
    for (let i = Math.max(0, begin - from); i < values.length && from + i <= end; i++) {
      if (Number.isFinite(values[i])) {
        low = Math.min(low, values[i]);
        high = Math.max(high, values[i]);
      }
    }
  }
  if (low > high) [low, high] = [0, 1];
  if (key === "kl") low = 0;
  const least = Math.max(Math.abs(high), Math.abs(low)) * 0.02 || 1;
  if (high - low < least) [low, high] = [low - least / 2, high + least / 2];
  const margin = (high - low) * 0.06;
  [low, high] = [key === "kl" ? 0 : low - margin, high + margin];
  const y = value => top + tall * (high - value) / (high - low);
  g.setLineDash([]);
  g.fillStyle = PANEL;
  g.fillRect(LEFT, top, width - LEFT - RIGHT, tall);
  g.textAlign = "right";
  g.textBaseline = "middle";
  g.fillStyle = DIM;
  for (const tick of ticks(low, high, Math.max(2, Math.floor(tall / 34)))) {
    g.fillStyle = LINE;
    g.fillRect(LEFT, Math.round(y(tick)), width - LEFT - RIGHT, 1);
    g.fillStyle = DIM;
    g.fillText(short(tick), LEFT - 5, y(tick));
  }
  g.save();
  g.beginPath();
  g.rect(LEFT, top, width - LEFT - RIGHT, tall);
  g.clip();
  if (key === "kl") drawStems(g, side, x, y, begin, end);
  else for (const line of lines) drawLine(g, line, x, y, begin, end);
  g.restore();
  g.fillStyle = INK;
  g.font = `bold ${FONT}`;
  g.textAlign = "left";
  const unit = key === "reward" && side.facts.unit ? ` (${side.facts.unit})` : "";
  g.fillText(name + unit, LEFT + 5, top + 9);
  g.font = FONT;
}

function drawLine(g, {values, from, colour, dashes, wide, faint}, x, y, begin, end) {
  g.strokeStyle = colour;
  g.lineWidth = wide;
  g.globalAlpha = faint ? 0.55 : 1;
  g.setLineDash(dashes);
  g.beginPath();
  let on = false;
  for (let i = Math.max(0, begin - from); i < values.length && from + i <= end; i++) {
    if (!Number.isFinite(values[i])) { on = false; continue; }
    if (on) g.lineTo(x(from + i), y(values[i]));
    else g.moveTo(x(from + i), y(values[i]));
    on = true;
  }
  g.stroke();
  g.globalAlpha = 1;
  g.setLineDash([]);
}

function drawStems(g, side, x, y, begin, end) {
  g.fillStyle = GREEN;
  const values = side.series.kl, wide = Math.max(1.5, (x(1) - x(0)) * 0.6);
  for (let i = Math.max(0, begin - side.first); i < values.length; i++) {
    if (Number.isFinite(values[i])) {
      g.fillRect(x(side.first + i) - wide / 2, y(values[i]), wide, y(0) - y(values[i]));
    }
  }
}

// The axis of time; lines at now, at the chosen moment, and where the dream has come to.
function drawTimes(g, side, x, begin, end, height, width) {
  g.textAlign = "center";
  g.textBaseline = "bottom";
  for (const tick of ticks(begin, end, Math.max(2, Math.floor(width / 110)))) {
    g.fillStyle = DIM;
    g.fillText(short(tick), x(tick), height - 2);
  }
  const marks = [];
  if (side.dreamt) {
    marks.push([side.dreamt.time, BLUE, []], [side.dreamt.time + side.dreamt.step, VERMILION, [3, 3]]);
  } else if (side.now) {
    marks.push([side.now.time, INK, []]);
    const dream = side.dreams.at(-1);
    if (dream) marks.push([dream.time + 1 + stepOf(dream), VERMILION, [3, 3]]);
    if (cursor !== null) marks.push([cursor, BLUE, [8, 3]]);
  }
  for (const [time, colour, dashes] of marks) {
    g.strokeStyle = colour;
    g.lineWidth = 1.4;
    g.setLineDash(dashes);
    g.beginPath();
    g.moveTo(x(time), 6);
    g.lineTo(x(time), height - 18);
    g.stroke();
  }
  g.setLineDash([]);
}

function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(n => n * power >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(n * step);
  return found;
}

const short = number => Math.abs(number) >= 10000 ? `${+(number / 1000).toFixed(1)}k`
  : `${+number.toPrecision(3)}`.replace("-", "−");

wire();
connect();
requestAnimationFrame(frame);
