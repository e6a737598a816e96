"use strict";
// The live view: what the run tells over one socket, drawn; and the operator's words, sent back.
(() => {
  const $ = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const state = { ready: false, blocks: 0, points: 0, frames: 0, drawn: 0, draws: 0, connects: 0, answers: [], facts: {}, status: null, frame: null };
  window.lamella = state;

  // --- numbers as people read them -------------------------------------------------------
  const PREFIX = [[1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"], [1e-12, "p"], [1e-15, "f"]];
  const prefix = (size) => PREFIX.find(([scale]) => size >= 0.9995 * scale) ?? PREFIX[PREFIX.length - 1];
  const known = (v) => typeof v === "number" && Number.isFinite(v);
  function si(value, unit, digits = 4) {
    if (!known(value)) return "–";
    if (value === 0) return `0 ${unit}`;
    const [scale, letter] = prefix(Math.abs(value)), shown = value / scale;
    const whole = Math.max(1, Math.floor(Math.log10(Math.max(1, Math.abs(shown)))) + 1);
    return `${shown.toFixed(Math.max(0, digits - whole))} ${letter}${unit}`;
  }
  function duration(s) {
    if (!known(s)) return "–";
    if (s < -0.5) return `−${duration(-s)}`;
    const whole = Math.max(0, Math.round(s)), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60, two = (n) => String(n).padStart(2, "0");
    return h ? `${h}:${two(m)}:${two(whole % 60)}` : `${m}:${two(whole % 60)}`;
  }

  // --- traces: all of the run, what is old thinned to its extremes --------------------------
  const CAPACITY = 16384, COLUMNS = 5;
  const data = Array.from({ length: COLUMNS }, () => new Float64Array(CAPACITY));
  let count = 0;
  function thinOlder() {
    const half = CAPACITY / 2;
    for (let to = 0, from = 0; from < half; from += 4, to += 2) {
      for (let c = 1; c < COLUMNS; c++) {
        const d = data[c];
        let low = NaN, high = NaN;
        for (let k = from; k < from + 4; k++) { if (!(d[k] >= low)) low = Number.isNaN(d[k]) ? low : d[k]; if (!(d[k] <= high)) high = Number.isNaN(d[k]) ? high : d[k]; }
        const rises = d[from] <= d[from + 3];
        d[to] = rises ? low : high; d[to + 1] = rises ? high : low;
      }
      const a = data[0][from], b = data[0][from + 2];
      data[0][to] = a; data[0][to + 1] = b;
    }
    data.forEach((d) => d.copyWithin(half / 2, half, count));
    count -= half / 2;
  }
  function takeRows(view, all) {
    const n = view.getUint32(4, true), rows = Math.min(n, CAPACITY);
    if (all) count = 0;
    while (count + rows > CAPACITY) thinOlder();
    const t = new Float64Array(view.buffer, 8, n);
    data[0].set(t.subarray(n - rows), count);
    for (let c = 1; c < COLUMNS; c++) data[c].set(new Float32Array(view.buffer, 8 + 8 * n + 4 * n * (c - 1), n).subarray(n - rows), count);
    count += rows;
    state.points = count; state.blocks += 1;
  }
  function firstAfter(t) {
    let low = 0, high = count;
    while (low < high) { const m = (low + high) >> 1; if (data[0][m] < t) low = m + 1; else high = m; }
    return low;
  }

  let shown_s = 300;
  const charts = [];
  function chart(id, unit, lines) {
    const box = $(id), title = document.createElement("p");
    title.className = "chart-title";
    lines.forEach((l) => { const b = document.createElement("b"); b.textContent = l.name; b.style.color = l.colour; title.append(b); });
    box.append(title);
    const axis = { stroke: colour("--soft"), font: "12px system-ui, sans-serif", grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    const ticks = (u, values) => {
      const size = Math.max(...values.map(Math.abs)) || Math.abs(u.scales.y.max), [scale, letter] = prefix(size), step = values.length > 1 ? Math.abs(values[1] - values[0]) / scale : 1;
      const digits = Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
      return values.map((v, k) => (v / scale).toFixed(digits) + (k === values.length - 1 ? ` ${letter}${unit}` : ""));
    };
    const plot = new uPlot({
      width: 300, height: 100, padding: [22, 14, 0, 0],
      scales: { x: { time: false }, y: { range: (u, low, high) => padded(low, high, unit) } },
      axes: [{ ...axis, size: id === "chart-q" ? 26 : 6, space: 90, values: (u, values) => values.map(id === "chart-q" ? duration : () => "") }, { ...axis, size: 70, space: 19, values: ticks }],
      series: [{}, ...lines.map((l) => ({ stroke: l.colour, width: l.width ?? 1.6, dash: l.dash, points: { show: false }, pxAlign: 0 }))],
      cursor: { sync: { key: "lamella" }, drag: { x: false, y: false }, points: { size: 6 } }, legend: { show: false },
    }, [[], ...lines.map(() => [])], box);
    charts.push({ box, plot, columns: lines.map((l) => l.column) });
  }
  const FLOOR = { V: 2e-4, A: 2e-14, C: 1e-13 };  // a span below which noise would fill the chart
  function padded(low, high, unit) {
    if (!known(low) || !known(high)) return [0, 1];
    const least = FLOOR[unit], middle = (low + high) / 2, half = Math.max(high - low, least) / 2;
    return [middle - 1.12 * half, middle + 1.12 * half];
  }
  function drawCharts() {
    const stop = count, last = stop ? data[0][stop - 1] : 0, start = shown_s ? Math.max(0, firstAfter(last - shown_s) - 1) : 0;
    const x = data[0].subarray(start, stop);
    charts.forEach((c) => c.plot.setData([x, ...c.columns.map((k) => data[k].subarray(start, stop))]));
    state.draws += 1;
  }
  function fit() {
    charts.forEach((c) => {
      const width = Math.floor(c.box.clientWidth), height = Math.floor(c.box.clientHeight);
      if (width > 50 && height > 50 && (width !== c.plot.width || height !== c.plot.height)) c.plot.setSize({ width, height });
    });
  }

  // --- the frame -----------------------------------------------------------------------------
  const canvas = $("frame"), pen = canvas.getContext("2d");
  let waiting = null, painting = false, bitmap = null;
  async function takeFrame(view) {
    const length = view.getUint32(4, true);
    const about = JSON.parse(new TextDecoder().decode(new Uint8Array(view.buffer, 8, length)));
    waiting = { about, jpeg: new Uint8Array(view.buffer, 8 + length) };
    state.frames += 1;
    if (painting) return; // only the newest is drawn
    painting = true;
    while (waiting) {
      const now = waiting;
      waiting = null;
      try {
        const next = await createImageBitmap(new Blob([now.jpeg], { type: "image/jpeg" }));
        if (bitmap) bitmap.close();
        bitmap = next; state.frame = now.about;
        drawFrame();
        state.drawn += 1;
      } catch { /* a picture that cannot be read is not drawn */ }
    }
    painting = false;
  }
  function drawFrame() {
    const f = state.frame;
    if (!bitmap || !f) return;
    const box = canvas.parentElement, dots = window.devicePixelRatio || 1;
    const fits = Math.min(box.clientWidth / f.width, box.clientHeight / f.height) * dots;
    const width = Math.max(1, Math.round(f.width * fits)), height = Math.max(1, Math.round(f.height * fits));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    $("no-frame").hidden = true;
    pen.imageSmoothingEnabled = fits < 1;
    pen.drawImage(bitmap, 0, 0, width, height);
    const u = 13 * dots;
    pen.font = `600 ${u}px system-ui, sans-serif`;
    label(`t = ${f.t_s.toFixed(2)} s`, u * 0.6, u * 0.6, u);
    if (f.blanked) label("beam blanked", u * 0.6, u * 2.4, u);
    drawMarks(fits / f.binned, width, height, u);
    if (state.facts.pixel_m) scaleBar(state.facts.pixel_m * f.binned, fits, width, height, u);
    $("frame-about").textContent = `frame ${f.index} · ${si(f.exposure_s, "s", 3)}${known(f.sigma_s) ? ` · ± ${si(f.sigma_s, "s", 2)}` : ""}`;
    $("frame-range").textContent = `black ${Number(f.low.toPrecision(4))}, white ${Number(f.high.toPrecision(4))} counts${f.binned > 1 ? ` · ${f.binned} × ${f.binned} binned` : ""}`;
  }
  // Where things were seen in the newest frame, and where rules draw their lines.
  const INK = { seen: "#4cd4ff", edge: "#d0a6ff", rule: "#ffb454" };
  function drawMarks(scale, width, height, u) {
    let rules = 0;
    for (const m of (state.status && state.status.marks) || []) {
      const at = (px) => (known(px) ? (px + 0.5) * scale : null), x = at(m.x_px), y = at(m.y_px);
      pen.strokeStyle = INK[m.what]; pen.lineWidth = m.what === "edge" ? u / 13 : u / 8;
      pen.setLineDash(m.what === "seen" ? [] : [u / 2, u / 3]);
      pen.beginPath();
      if (x !== null && y !== null) pen.arc(x, y, u / 2, 0, 2 * Math.PI);
      else if (x !== null) { pen.moveTo(x, 0); pen.lineTo(x, height); }
      else { pen.moveTo(0, y); pen.lineTo(width, y); }
      pen.stroke();
      pen.setLineDash([]);
      if (m.what === "rule") ruleLabel(m.text, x, y, rules++, width, height, u);
    }
  }
  // Beside its line, on the side with more room; small enough to fit there.
  function ruleLabel(text, x, y, count, width, height, u) {
    const left = x !== null && x > width / 2, room = x === null ? width - 1.4 * u : (left ? x : width - x) - 1.4 * u;
    const size = Math.max(0.7 * u, Math.min(u, (u * room) / pen.measureText(text).width));
    pen.save();
    pen.font = `600 ${size}px system-ui, sans-serif`;
    const wide = pen.measureText(text).width, down = y === null ? 2.4 * u + 1.8 * size * count : Math.min(y + 0.5 * u, height - 2 * u);
    label(text, x === null ? width - wide - 0.7 * u : left ? x - wide - 0.7 * u : x + 0.7 * u, down, size, INK.rule);
    pen.restore();
  }
  function label(text, x, y, u, ink = "#fff") {
    const w = pen.measureText(text).width;
    pen.fillStyle = "rgba(5,8,11,.62)"; pen.fillRect(x - u * 0.3, y - u * 0.25, w + u * 0.6, u * 1.5);
    pen.fillStyle = ink; pen.textBaseline = "top"; pen.fillText(text, x, y);
  }
  function scaleBar(pixel_m, fits, width, height, u) {
    const goal = (width / fits) * pixel_m / 4, power = 10 ** Math.floor(Math.log10(goal));
    const length = [5, 2, 1].map((k) => k * power).find((l) => l <= goal) ?? power, w = (length / pixel_m) * fits, said = si(length, "m", 1);
    pen.fillStyle = "rgba(5,8,11,.62)"; pen.fillRect(u * 0.3, height - u * 2.6, Math.max(w, pen.measureText(said).width) + u * 0.8, u * 2.3);
    pen.fillStyle = "#fff"; pen.fillRect(u * 0.7, height - u * 0.8, w, u * 0.28);
    pen.textBaseline = "alphabetic"; pen.fillText(said, u * 0.7, height - u * 1.1);
  }

  // --- what the run says of itself ---------------------------------------------------------------
  const text = (id, value) => { const e = $(id); if (e.textContent !== value) e.textContent = value; };
  const mark = (id, bad) => $(id).classList.toggle("bad", Boolean(bad));
  function gauge(id, from, to) {
    const e = $(id), a = Math.min(1, Math.max(0, from)), b = Math.min(1, Math.max(0, to));
    e.style.left = `${100 * Math.min(a, b)}%`; e.style.width = `${Math.max(1, 100 * Math.abs(b - a))}%`;
    e.parentElement.classList.toggle("near", b > 0.95 || (a === 0 && b < 0.02 && id === "v-gauge"));
  }
  function condition(s) {
    if (s.ended) return ["ended", s.ended];
    if (s.wish !== "nothing") return ["ending", { stop: "stopping", abort: "aborting", halt: "halting" }[s.wish]];
    if (s.paused || s.is_paused) return ["paused", s.paused || "pausing"];
    if (s.held) return ["held", "held"];
    if (s.waits) return ["held", "waits"];
    if (s.unseen) return ["starting", "waits for the image"];
    return s.step < 0 ? ["starting", "starting"] : ["running", "running"];
  }
  function show(s) {
    state.status = s;
    const [kind, word] = condition(s), F = state.facts;
    document.body.dataset.state = kind;
    text("pill", kind === "ended" ? "ended" : word);
    document.title = `${kind === "ended" ? "ended" : word} · ${F.title ?? "Lamella"}`;
    text("step", s.ended ? `ended: ${s.ended}` : s.step < 0 ? s.stage : `step ${s.step + 1} of ${s.steps} · ${s.name}`);
    const left = s.step_longest_s - s.step_elapsed_s, lasts = known(s.step_longest_s) && s.step >= 0 && !s.ended && !s.held;
    text("left", lasts ? `${duration(Math.max(0, left))} left at most` : "");
    $("step-bar").style.width = lasts ? `${Math.min(100, (100 * s.step_elapsed_s) / s.step_longest_s)}%` : "0";
    text("elapsed", `elapsed ${duration(s.elapsed_s)}`);
    text("planned", known(s.planned_s) && s.planned_s ? `of at most ${duration(s.planned_s)}` : "");

    text("v", known(s.voltage_V) ? `${s.voltage_V.toFixed(4)} V` : "–");
    text("i", si(s.current_A, "A"));
    const ionic = known(s.ionic_C);
    text("q-title", ionic ? "Ionic charge, live" : "Instrument charge");
    text("q", si(ionic ? s.ionic_C : s.charge_C, "C"));
    text("q-limit", ionic ? `instrument ${si(s.charge_C, "C")} · limit ${si(F.charge_max_C, "C", 3)}` : `holder not calibrated · limit ${si(F.charge_max_C, "C", 3)}`);
    text("v-limit", `limits ${known(F.voltage_min_V) ? F.voltage_min_V : "–"} to ${si(F.voltage_max_V, "V", 3)}`);
    text("i-limit", `limit ± ${si(F.current_max_A, "A", 3)}`);
    text("dose", F.camera === null ? "no camera" : `${s.dose_e_A2.toFixed(1)} e/Å²`);
    text("dose-limit", known(F.dose_max_e_A2) ? `limit ${Number(F.dose_max_e_A2.toPrecision(4))} e/Å²` : "no limit");
    if (known(s.voltage_V)) gauge("v-gauge", 0, (s.voltage_V - F.voltage_min_V) / (F.voltage_max_V - F.voltage_min_V));
    if (known(s.current_A)) gauge("i-gauge", 0.5, 0.5 + (0.5 * s.current_A) / F.current_max_A);
    gauge("q-gauge", 0, Math.abs(s.charge_C) / F.charge_max_C);
    gauge("dose-gauge", 0, known(F.dose_max_e_A2) ? s.dose_e_A2 / F.dose_max_e_A2 : 0);

    text("age", known(s.age_s) ? `${s.age_s.toFixed(1)} s ago` : "none yet"); mark("age", s.age_s > 2 && !s.ended);
    text("samples", s.samples.toLocaleString("en"));
    text("frames", `${s.frames.toLocaleString("en")}, ${s.dropped} lost`); mark("frames", s.dropped > 0.05 * s.frames);
    text("ring", `${(100 * s.ring_fill).toFixed(0)} % waits for the disk`); mark("ring", s.ring_fill > 0.5);
    text("clock", known(s.clock_sigma_s) ? `± ${si(s.clock_sigma_s, "s", 3)}` : "not known");
    $("tracks").hidden = $("tracks-name").hidden = !s.tracks.length;
    text("tracks", s.tracks.join("\n"));
    text("seen-in", known(s.seen_frame) ? `frame ${s.seen_frame} · ${si(s.seen_took_s, "s", 2)}${s.untracked ? ` · ${s.untracked} left out` : ""}` : "");
    const asked = s.temperature_K !== null || s.remote;
    $("warm").hidden = $("warm-name").hidden = s.temperature_K === null;
    text("warm", known(s.temperature_K) ? `${s.temperature_K.toFixed(1)} K` : "unknown");
    $("remote").hidden = $("remote-name").hidden = !s.remote;
    if (asked) text("remote", s.remote);
    text("link", `${s.viewers} ${s.viewers === 1 ? "page is" : "pages are"} open`);
    enable(kind, s);
  }

  // --- the log --------------------------------------------------------------------------------------
  const ALARMS = ["made_safe", "fault", "frame_fault", "disk", "gap", "limit", "clock_disagreement", "calibration_doubted"];
  let lastEvent = 0;
  function takeEvent(e) {
    if (e.number <= lastEvent) return; // told before the connection was lost
    lastEvent = e.number;
    const row = document.createElement("li"), when = document.createElement("time"), log = $("log");
    row.className = ALARMS.includes(e.what) || e.message.startsWith("warning") ? "alarm" : e.what;
    when.textContent = known(e.t_s) ? `${e.t_s.toFixed(1)} s` : "·";
    row.append(when, e.what === "note" ? `note (${e.source}): ${e.message}` : e.message);
    log.prepend(row);
    while (log.children.length > 300) log.lastChild.remove();
  }

  // --- words of the operator -----------------------------------------------------------------------
  const buttons = [...document.querySelectorAll("#buttons button")];
  const AT_ONCE = ["pause"]; // goes to the safe side, and can be taken back
  const asked = new Map();
  let socket = null, nonce = "", number = 0, armed = null, disarm = 0;
  function enable(kind, s) {
    const open = socket && socket.readyState === 1 && kind !== "ended", rests = kind === "paused" || kind === "held";
    const may = { pause: kind === "running" || kind === "starting" || Boolean(s.waits), resume: rests, next: (kind === "running" || Boolean(s.waits)) && s.step >= 0,
      stop: s.wish === "nothing", abort: s.wish === "nothing" || s.wish === "stop", halt: s.wish !== "halt" };
    buttons.forEach((b) => { b.disabled = !(open && may[b.dataset.word]); });
    $("note").disabled = !open;
  }
  function send(word, more = {}) {
    if (!socket || socket.readyState !== 1) return answer("refused", `${word}: no connection to the run`);
    number += 1;
    asked.set(number, word);
    socket.send(JSON.stringify({ n: number, nonce, word, ...more }));
    answer("", `${word}: asked …`);
  }
  function answer(kind, said) { const e = $("answer"); e.className = kind; e.textContent = said; }
  function takeAnswer(a) {
    const word = asked.get(a.n) ?? "command";
    asked.delete(a.n);
    state.answers.push(a);
    if (state.answers.length > 20) state.answers.shift();
    answer(a.done ? "done" : "refused", a.done ? `${word}: done, and recorded in the session` : `${word} refused: ${a.reason}`);
  }
  function unarm() {
    clearTimeout(disarm);
    if (armed) { armed.classList.remove("armed"); armed.querySelector("small").textContent = armed.dataset.means; }
    armed = null;
  }
  buttons.forEach((b) => {
    b.dataset.means = b.querySelector("small").textContent;
    b.addEventListener("click", () => {
      const word = b.dataset.word;
      if (!AT_ONCE.includes(word) && armed !== b) {
        unarm();
        armed = b;
        b.classList.add("armed"); b.querySelector("small").textContent = "press again to confirm";
        disarm = setTimeout(unarm, 4000);
        return;
      }
      unarm();
      send(word, word === "next" && state.status ? { step: state.status.step } : {});
    });
  });
  $("note-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const said = $("note").value.trim();
    if (said) { send("note", { text: said }); $("note").value = ""; }
  });
  document.querySelectorAll("#windows button").forEach((b) => {
    const seconds = Number(b.dataset.window);
    b.setAttribute("aria-pressed", String(seconds === shown_s));
    b.addEventListener("click", () => {
      shown_s = seconds; dirty = true;
      document.querySelectorAll("#windows button").forEach((o) => o.setAttribute("aria-pressed", String(o === b)));
    });
  });

  // --- the socket -------------------------------------------------------------------------------------
  let heard = 0, pause_ms = 500, dirty = false;
  function connect() {
    const mine = new WebSocket(`${location.origin.replace(/^http/, "ws")}${location.pathname}live`);
    socket = mine;
    mine.binaryType = "arraybuffer";
    mine.addEventListener("message", (m) => {
      heard = performance.now();
      if (typeof m.data === "string") return take(JSON.parse(m.data));
      const view = new DataView(m.data), kind = view.getUint8(0);
      if (kind === 3) takeFrame(view);
      else { takeRows(view, kind === 2); dirty = true; }
    });
    mine.addEventListener("close", () => {
      if (socket !== mine) return;
      asked.clear();
      unarm();
      if (state.status) enable(state.status.ended ? "ended" : "lost", state.status);
      setTimeout(connect, pause_ms);
      pause_ms = Math.min(2 * pause_ms, state.status && state.status.ended ? 60000 : 5000);
    });
  }
  function take(message) {
    if (message.kind === "status") show(message);
    else if (message.kind === "event") takeEvent(message);
    else if (message.kind === "answer") takeAnswer(message);
    else if (message.kind === "hello") hello(message);
  }
  function hello(message) {
    state.facts = message; state.connects += 1;
    nonce = message.nonce; number = 0; pause_ms = 500; lastEvent = 0;
    $("log").replaceChildren();
    text("title", message.title);
    const tags = [message.simulated ? "simulated" : message.driver, message.camera ? `camera: ${message.camera}` : "no camera"];
    $("tags").replaceChildren(...tags.map((t) => { const e = document.createElement("span"); e.textContent = t; return e; }));
    if (!message.may_command) { const e = document.createElement("span"); e.className = "look"; e.textContent = "look only"; $("tags").append(e); }
    $("controls").hidden = !message.may_command;
    $("note-form").hidden = !message.may_command;
    if (message.camera === null) text("no-frame", "this run has no camera");
    else if (message.is_remote) text("no-frame", "the frames stay on the camera's computer");
    state.ready = true;
    fit();
  }
  // What a person has to know or to decide stands across the page, in full.
  function tell(s, lost_s) {
    const lost = lost_s > 0, why = s && !s.ended && (s.held || s.unseen || s.moderated);
    $("banner").hidden = !lost && !why;
    $("banner").className = lost ? "lost" : "calm";
    if (lost) text("banner", `No word from the run for ${lost_s.toFixed(0)} s. It goes on without this page; Ctrl-C at its terminal stops it.`);
    else if (why) text("banner", s.held ? `The plan is held, at rest at 0 A. ${s.held}. Resume goes on with it, Stop with the plan's ending.` : s.unseen ? `The next step waits: ${s.unseen}.` : `Less current than planned, ${s.moderated}.`);
  }
  function watch() {
    const silent_s = (performance.now() - heard) / 1000, over = state.status && state.status.ended;
    const lost = silent_s > 2 && !over && state.connects > 0;
    if (lost) { document.body.dataset.state = "lost"; text("pill", "no link"); }
    tell(state.status, lost ? silent_s : 0);
  }
  let last_ms = 0;
  function draw(now_ms) {
    // Half a frame early is on time: a display of 60 Hz would otherwise give 20 pictures of 25.
    if (dirty && now_ms - last_ms > 25) { dirty = false; last_ms = now_ms; drawCharts(); }
    requestAnimationFrame(draw);
  }

  chart("chart-v", "V", [{ name: "voltage", column: 1, colour: colour("--v") }]);
  chart("chart-i", "A", [{ name: "current, positive charges the cell", column: 2, colour: colour("--i") }]);
  chart("chart-q", "C", [{ name: "ionic charge", column: 4, colour: colour("--q") }, { name: "instrument charge", column: 3, colour: colour("--soft"), dash: [5, 4], width: 1.2 }]);
  new ResizeObserver(() => { fit(); drawFrame(); }).observe(document.querySelector("main"));
  new ResizeObserver(() => { fit(); drawFrame(); }).observe($("stage"));
  setInterval(watch, 500);
  connect();
  requestAnimationFrame(draw);
})();
