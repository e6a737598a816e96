"use strict";
// The report's page: everything it shows is inside this file.
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const { element, table, chart, nearest } = report, state = lamella, F = D.frames;
  const absent = (target, text) => target.append(element("p", text, "absent"));
  const words = (name) => name.replaceAll("_", " ");
  const file = (name) => name.replace(/[^\w-]+/g, "_");
  const at = (times, values, t) => values[nearest(times, t)];
  const few = (v, digits = 3) => (v === null || v === undefined ? "–" : String(Number(v.toPrecision(digits))));
  state.spans = D.spans;

  // --- head ----------------------------------------------------------------------------
  $("title").textContent = D.title;
  $("subtitle").append(element("span", D.simulated ? "simulated hardware" : "measured", "tag"), `${D.start.slice(0, 19).replace("T", " ")} UTC · ended: ${D.ended}`);
  D.warnings.forEach((text) => $("warnings").append(element("p", `Warning: ${text}`)));

  // --- frames and traces -----------------------------------------------------------------
  const film = F ? report.frames(F, D.marks) : null, traces = $("traces");
  if (F) $("slider").max = F.t.length - 1;
  else { $("frame").hidden = true; $("controls").hidden = true; $("no-frames").hidden = false; }
  if (D.traces) {
    chart(traces, { title: "terminal voltage", file: "voltage", x: D.traces.t, yLabel: "V", time: true, lines: [{ values: D.traces.voltage, colour: "voltage" }] });
    chart(traces, { title: "current, positive charges the cell", file: "current", x: D.traces.t, yLabel: D.traces.current_unit, time: true, height: 170, lines: [{ values: D.traces.current, colour: "current" }] });
  } else absent(traces, "This session has no electrical readings.");
  const plotted = (target, track, q, height) => chart(target, {
    title: `${track.name}: ${words(q.name)}`, file: file(`${track.name}_${q.name}`), x: q.t, yLabel: q.unit, time: true, height,
    lines: [{ label: `${words(q.name)} ± 1 sigma`, values: q.value, low: q.low, high: q.high, colour: "front", width: 1.2, points: q.t.length < 60 }],
  });
  // Beside the frames stands the first quantity of each of two tracks; all of them are below.
  const shown = D.tracks.filter((t) => t.quantities.length).slice(0, 2).map((t) => ({ track: t, q: t.quantities[0] }));
  shown.forEach(({ track, q }) => plotted(traces, track, q, 190));
  const drift = (target) => chart(target, { title: "drift: what brings frames onto the reference", file: "drift", x: D.drift.t, yLabel: "px", time: true, height: 170,
    lines: [{ label: "x", values: D.drift.dx, colour: "front", points: D.drift.t.length < 60 }, { label: "y", values: D.drift.dy, colour: "voltage", dash: [6, 4], points: D.drift.t.length < 60 }] });
  if (!D.tracks.length) {
    if (D.drift) drift(traces);
    absent(traces, `${D.drift ? "Nothing but drift" : "Nothing"} was tracked in this session.`);
  }
  report.legend($("legend"), D.marks);

  // --- why it stopped --------------------------------------------------------------------
  if (D.steps.length) {
    const terms = Object.keys(D.steps[0].charge), speed = D.steps.some((s) => s.speed !== "unknown");
    $("steps-note").textContent = `${speed ? "Speeds are fits over the step without its first 2 s; charges" : "Charges"} are those of the step alone.`;
    table($("steps"), ["step", "held", "lasted", "ended because", ...(speed ? ["front speed"] : []), ...terms],
      D.steps.map((s) => [s.name, s.held, s.lasted, s.ended, ...(speed ? [s.speed] : []), ...terms.map((t) => s.charge[t])]));
  } else $("why").hidden = true;
  D.stops.forEach((stop, number) => {
    const card = element("div", undefined, "stop"), side = element("div");
    card.append(element("h3", `Stopped by an image at ${stop.t.toFixed(2)} s: ${stop.rule}`));
    if (!stop.chart) side.append(element("p", stop.why));
    const facts = table(side, [], stop.facts.map((f) => [f.name, f.value]));
    facts.className = "facts";
    const pair = element("div", undefined, "pair");
    pair.append(side);
    card.append(pair);
    $("stops").append(card);
    if (!stop.chart) return;
    const C = stop.chart, beside = element("div");
    pair.append(beside);
    chart(beside, {
      title: C.name, file: file(`stop_${number + 1}_${C.name}`), x: C.t, yLabel: C.unit, height: 250,
      lines: [
        { label: "whole recording ± 1 sigma", values: C.value, low: C.low, high: C.high, colour: "front", width: 1.2 },
        { label: "as it was seen live", x: C.live_t, values: C.live, colour: "voltage", points: "only" },
        ...(C.foreseen === null ? [] : [{ label: "foreseen", x: [C.foreseen_t], values: [C.foreseen], low: [C.foreseen - C.foreseen_sigma], high: [C.foreseen + C.foreseen_sigma], colour: "cursor", points: "only" }]),
      ],
      across: [{ at: C.limit, label: "the rule", colour: "current" }], upright: [{ at: stop.t, label: "stop", colour: "cursor" }],
    });
    card.append(strip(stop));
  });
  function strip(stop) {
    const row = element("div", undefined, "strip"), S = stop.strip;
    S.images.forEach((source, i) => {
      const picture = element("button"), canvas = element("canvas"), image = new Image();
      picture.type = "button";
      picture.title = "show this frame above";
      if (i === S.decided) picture.className = "decided";
      image.addEventListener("load", () => {
        const s = Math.max(1, 300 / image.width), pen = canvas.getContext("2d");
        canvas.width = image.width * s;
        canvas.height = image.height * s;
        pen.drawImage(image, 0, 0, canvas.width, canvas.height);
        report.drawMarks(pen, S.marks, i, canvas.width / F.width, canvas.width, canvas.height);
        report.drawRule(pen, S.rule[i], canvas.width / F.width, canvas.width, canvas.height);
      });
      image.src = source;
      const since = S.t[i] - stop.t;
      picture.append(canvas, element("span", `frame ${S.index[i]}${i === S.decided ? ", which decided" : ""} · ${since < 0 ? "−" : "+"}${Math.abs(since).toFixed(2)} s`));
      picture.addEventListener("click", () => { goToTime(S.t[i]); $("scrub").scrollIntoView({ behavior: "smooth" }); });
      row.append(picture);
    });
    return row;
  }

  // --- tracks ----------------------------------------------------------------------------
  D.tracks.forEach((track) => {
    const part = element("div"), grid = element("div", undefined, "grid"), beside = shown.find((s) => s.track === track);
    part.append(element("h3", track.name), element("p", `${track.tracker ? `${track.tracker} tracker, ` : ""}${track.valid} of ${track.count} frames valid${track.reasons ? `; not valid: ${track.reasons}` : ""}`, "absent"), grid);
    $("tracks-all").append(part);
    track.quantities.filter((q) => !beside || q !== beside.q).forEach((q) => plotted(grid, track, q, 170));
    track.many.forEach((m) => chart(grid, {
      title: `${track.name}: ${words(m.name)}, ${m.names.length} of them`, file: file(`${track.name}_${m.name}`), x: m.t, yLabel: m.unit, time: true, height: 170,
      lines: m.values.map((values, i) => ({ label: words(m.names[i]), values, colour: ["front", "voltage", "current", "cursor", "violet", "soft"][i % 6], width: 1 })),
    }));
  });
  if (D.drift && D.tracks.length) {
    const grid = element("div", undefined, "grid");
    $("tracks-all").append(element("h3", "drift"), grid);
    drift(grid);
  }
  $("tracks").hidden = !D.tracks.length;

  // --- where the charge went -----------------------------------------------------------------
  const colours = { instrument: "ink", ionic: "front", leak: "current", capacitive: "voltage", dielectric: "violet", beam: "cursor" };
  if (D.ledger) {
    const known = Object.keys(D.ledger.terms).filter((t) => D.ledger.terms[t].value.some((v) => v !== null));
    chart($("ledger"), { title: "cumulative, with ± 1 sigma", file: "ledger", x: D.ledger.t, yLabel: D.ledger.unit, time: true, height: 280,
      lines: known.map((t) => ({ label: t, values: D.ledger.terms[t].value, low: D.ledger.terms[t].low, high: D.ledger.terms[t].high, colour: colours[t], width: 1.6 })) });
    if (known.length < Object.keys(D.ledger.terms).length) absent($("ledger"), "No open-holder calibration: what the holder took, and so the ionic charge, is unknown.");
    table($("ledger-total"), ["term", "whole run"], D.ledger_total.map((r) => [r.term, r.value]));
  } else absent($("ledger"), "No ledger was made of this session: lamella correlate makes it.");
  D.balances.forEach((b) => {
    const box = element("div");
    $("balances").append(box);
    if (b.charge) chart(box, { title: b.what, file: file(b.name), x: b.charge, xLabel: `ionic charge (${b.charge_unit})`, yLabel: b.value_unit, height: 240,
      lines: [{ label: "each frame ± 1 sigma", values: b.value, low: b.low, high: b.high, colour: "front", points: "only" }, { label: "fit", values: b.fit, colour: "ink" },
        ...(b.faraday ? [{ label: "expected", values: b.faraday, colour: "cursor", dash: [6, 4] }] : [])] });
    box.append(element("p", `${b.charge ? "" : `${b.what}: `}${b.slope} of ionic charge${b.expected ? `, ${b.expected} expected of geometry and material` : ""}: ${b.ratio} of it.${b.lacks ? ` ${b.lacks}` : ""}`));
  });
  if (!D.balances.length) absent($("balances"), "Needs a front or a volume that was tracked, a calibrated holder and a known material.");

  // --- what goes with what -----------------------------------------------------------------------
  const tests = D.associations;
  $("charge").hidden = $("together").hidden = !D.traces && !tests.length;
  if (tests.length) {
    const rows = table($("tests"), ["rate and drive", "r", "lag", "p", "q"], tests.map((t) => [t.what, few(t.r_max), t.lag_at_max_s === null ? "–" : `${few(t.lag_at_max_s)} s`, few(t.p, 2), few(t.q, 2)])).querySelectorAll("tr");
    const show = (i) => {
      const t = tests[i], target = $("test");
      rows.forEach((row, k) => row.classList.toggle("chosen", k === i + 1));
      target.replaceChildren(element("h3", t.what));
      // Charts of a test that was looked at before are gone with it.
      state.figures = state.figures.filter((f) => !f.ofTest);
      if (t.lag) {
        const flat = (v) => t.lag.map(() => v), pair = element("div", undefined, "pair");
        target.append(pair);
        const one = element("div"), two = element("div"), E = t.surrogates.edges;
        pair.append(one, two);
        chart(one, { title: "correlation by lag; shaded: what chance gives (95 %)", file: `${t.name}_lags`, ofTest: true, x: t.lag, xLabel: "lag of the rate behind the drive (s)", yLabel: "r", height: 230, range: [-1, 1],
          lines: [{ values: flat(0), low: flat(-t.band), high: flat(t.band), colour: "soft", width: 0.5 }, { values: t.r, colour: "front", width: 1.8, points: true }] });
        chart(two, { title: "largest |r| of surrogates, which know nothing of the drive", file: `${t.name}_surrogates`, ofTest: true, x: E, xLabel: "largest |r| over all lags", yLabel: "surrogates", height: 230,
          lines: [{ label: "random phases", values: [...t.surrogates.phase, 0], colour: "voltage", bars: true }, { label: "IAAFT", values: [...t.surrogates.iaaft, 0], colour: "current", bars: true }],
          upright: [{ at: Math.abs(t.r_max), label: "the data", colour: "cursor" }] });
      }
      const numbers = t.lag ? ` r = ${few(t.r_max)} at ${few(t.lag_at_max_s)} s, p = ${few(t.p, 2)}, false-discovery rate ${few(t.q, 2)} over ${t.family} tests; ${t.effect}, 95 %; ${t.n} pairs, ${few(t.n_effective)} effective; taken out: ${t.given}.` : "";
      target.append(element("p", t.verdict + numbers));
    };
    rows.forEach((row, k) => { if (k) { row.tabIndex = 0; row.addEventListener("click", () => show(k - 1)); row.addEventListener("keydown", (e) => { if (e.key === "Enter") show(k - 1); }); } });
    show(0);
  } else absent($("tests"), "Nothing to correlate: something that was tracked and a current or voltage that varies are needed.");
  D.switching.forEach((s) => chart($("switching"), { title: `${s.name}: rate around ${s.events} changes of the set-point, p = ${few(s.p, 2)}`, file: `${s.name}_switching`, x: s.offset, xLabel: "time after the change (s)", yLabel: s.unit, height: 210,
    lines: [{ label: "by chance (95 %)", values: s.chance_low.map(() => 0), low: s.chance_low, high: s.chance_high, colour: "soft", width: 0.5 }, { label: "mean, with its 95 % band", values: s.mean, low: s.low, high: s.high, colour: "front" }] }));

  // --- impedance and titration ----------------------------------------------------------------------
  D.spectra.forEach((s) => {
    const title = `impedance ${s.of_cell ? "of the cell" : "with the holder"}, step ${s.step + 1}`, name = `impedance_step_${s.step + 1}`, up = s.frequency_Hz.map((f, i) => i).sort((a, b) => s.frequency_Hz[a] - s.frequency_Hz[b]), across = s.frequency_Hz.map((f, i) => i).sort((a, b) => s.real_ohm[a] - s.real_ohm[b]);
    const size = Math.max(...s.real_ohm.map(Math.abs), ...s.imag_ohm.map(Math.abs)), [scale, unit] = [[1e12, "TΩ"], [1e9, "GΩ"], [1e6, "MΩ"], [1e3, "kΩ"]].find(([k]) => size >= k) ?? [1, "Ω"];
    const of = (list, order, sign = 1, by = 0) => order.map((i) => (list[i] === null ? null : (sign * list[i] + by * s.sigma_ohm[i]) / scale));
    chart($("cell-charts"), { title, file: `${name}_nyquist`, x: of(s.real_ohm, across), xLabel: `real (${unit})`, yLabel: `−imaginary (${unit})`, height: 230,
      lines: [{ label: "± 1 sigma", values: of(s.imag_ohm, across, -1), low: of(s.imag_ohm, across, -1, -1), high: of(s.imag_ohm, across, -1, 1), colour: "voltage", points: "only" }] });
    chart($("cell-charts"), { title: `${title}, by frequency`, file: name, x: up.map((i) => Math.log10(s.frequency_Hz[i])), xLabel: "log10 of the frequency in Hz", yLabel: unit, height: 230,
      lines: [{ label: "real", values: of(s.real_ohm, up), low: of(s.real_ohm, up, 1, -1), high: of(s.real_ohm, up, 1, 1), colour: "voltage", points: true }, { label: "−imaginary", values: of(s.imag_ohm, up, -1), low: of(s.imag_ohm, up, -1, -1), high: of(s.imag_ohm, up, -1, 1), colour: "current", points: true }] });
  });
  D.titrations.forEach((t) => {
    $("cell-tables").append(element("h3", `diffusivity, step ${t.step}`));
    table($("cell-tables"), ["pulse", "current", "by the formula, m²/s", "by the fit, m²/s", "to be believed"], t.pulses);
  });
  $("cell").hidden = !D.spectra.length && !D.titrations.length;

  // --- dose --------------------------------------------------------------------------------------------
  if (D.dose) {
    const dose = D.dose;
    $("dose").hidden = false;
    $("dose-reason").textContent = dose.reason ? `${dose.reason[0].toUpperCase()}${dose.reason.slice(1)}.` : "";
    if (dose.image) {
      const picture = element("img"), scale = element("div", "", "scale"), ends = element("div", "", "ends");
      picture.src = dose.image;
      picture.alt = "dose by place on the specimen";
      scale.style.background = `linear-gradient(90deg, ${dose.colours.join(", ")})`;
      ends.append(element("span", "0"), element("span", dose.largest));
      $("dose-map").append(picture, scale, ends);
      $("dose-text").textContent = [`${dose.total} to the end of the last frame`, `at most ${dose.largest} on any part of the specimen`, `${dose.size} that the field has reached, ${dose.drift}`,
        ...(dose.blanked ? [`beam blanked for ${dose.blanked} of the time`] : [])].join("\n");
    } else $("dose-text").textContent = "The dose is unknown.";
  }

  // --- clocks and queues ---------------------------------------------------------------------------------
  D.clocks.clocks.forEach((c) => {
    if (c.t) chart($("clock-charts"), { title: `clock of the ${c.name}: exchanges less the fit`, file: `clock_${file(c.name)}`, x: c.t, yLabel: c.unit, height: 190, time: true,
      lines: [{ label: "exchange ± half its round trip", values: c.left, low: c.low, high: c.high, colour: "voltage", points: "only" }] });
  });
  if (D.clocks.frames) chart($("clock-charts"), { title: "1 sigma of the frames' times", file: "frame_time_sigma", x: D.clocks.frames.t, yLabel: D.clocks.frames.unit, height: 190, time: true, lines: [{ values: D.clocks.frames.sigma, colour: "front" }] });
  const fits = D.clocks.clocks.flatMap((c) => c.rows.map((r) => [c.name, r.from, r.exchanges, r.rate, r.offset, r.bound]));
  if (fits.length) table($("clock-fits"), ["clock", "fitted over", "exchanges", "host time for its time", "1 sigma of the offset", "hard bound"], fits);
  else absent($("clock-fits"), "No clock was compared with this computer's.");
  D.clocks.said.forEach((text) => $("clock-fits").append(element("p", text)));
  if (D.queues.length) table($("queues"), ["queue", "what passed", "most at once"], D.queues.map((q) => [q.name, q.counts, q.most]));

  // --- what happened, and how it was done ---------------------------------------------------------------------
  D.facts.forEach((f) => { const row = element("tr"); row.append(element("td", f.name), element("td", f.value)); $("facts").append(row); });
  table($("events"), [], D.events.map((e) => [`${e.t.toFixed(2).replace(/^-(0\.00)$/, "$1")} s`, e.text]));
  $("methods-text").textContent = D.methods;
  $("versions").textContent = `Software: ${Object.entries(D.versions).map(([k, v]) => `${k} ${v}`).join(", ") || "not recorded"}.`;
  $("footer").textContent = D.reductions.map((r) => `Reduced: ${r}.`).join(" ");

  // --- hands ---------------------------------------------------------------------------------------------------
  function readout(t) {
    const parts = [`t = ${t.toFixed(3)} s`];
    if (F) parts.push(`frame ${F.index[state.index]}`);
    if (D.traces) {
      const v = at(D.traces.t, D.traces.voltage, t), i = at(D.traces.t, D.traces.current, t);
      if (v !== null) parts.push(`V = ${v.toFixed(4)} V`);
      if (i !== null) parts.push(`I = ${Number(i.toPrecision(5))} ${D.traces.current_unit}`);
    }
    shown.forEach(({ track, q }) => {
      const k = nearest(q.t, F ? F.t[state.index] : t), x = q.value[k], spread = q.high[k] === null ? null : q.high[k] - x, places = spread ? Math.max(0, 1 - Math.floor(Math.log10(spread))) : 3;
      parts.push(x === null ? `${track.name}: not found in this frame` : `${track.name} ${words(q.name)} ${x.toFixed(places)}${spread === null ? "" : ` ± ${spread.toFixed(places)}`} ${q.unit}`);
    });
    if (F && F.dose[state.index] !== null) parts.push(`dose ${F.dose[state.index].toFixed(1)} e/Å²`);
    $("readout").textContent = parts.join("   ·   ");
  }
  function goToTime(t) {
    if (F) return goTo(nearest(F.t, t), t);
    state.time = t; report.setCursors(); readout(t);
  }
  function goTo(i, t) {
    state.index = Math.min(Math.max(i, 0), F.t.length - 1);
    state.time = t ?? F.t[state.index];
    $("slider").value = state.index;
    film.show(state.index); report.setCursors(); readout(state.time);
  }
  state.go = goToTime;
  if (F) {
    $("slider").addEventListener("input", (e) => goTo(Number(e.target.value)));
    $("save-frame").addEventListener("click", () => film.save());
    const play = $("play");
    play.addEventListener("click", () => { state.playing = !state.playing; play.textContent = state.playing ? "❚❚" : "▶"; if (state.playing) tick(); });
    const tick = () => {
      if (!state.playing) return;
      if (!film.isBusy()) goTo(state.index + 1 >= F.t.length ? 0 : state.index + 1);
      setTimeout(tick, Math.max(30, 15000 / F.t.length));
    };
    addEventListener("keydown", (e) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, PageDown: 25, PageUp: -25 }[e.key];
      if (move && e.target !== $("slider")) { goTo(state.index + move); e.preventDefault(); }
      if (e.key === " " && e.target.tagName !== "BUTTON") { play.click(); e.preventDefault(); }
    });
  }
  // The charts draw themselves a moment later; only then do they know their scales.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    if (F) goTo(Math.floor(F.t.length / 2));
    else if (D.traces) goToTime(D.traces.t[Math.floor(D.traces.t.length / 2)]);
    state.ready = true;
  }));
})();
