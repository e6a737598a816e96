"use strict";
// One page, no network: frames, traces and tables from the JSON beside this script.
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const state = { index: 0, time: 0, drawn: -1, playing: false, charts: [] };
  window.lamella = state;

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const table = (target, head, rows) => {
    const made = element("table"), row0 = element("tr");
    head.forEach((h) => row0.append(element("th", h)));
    if (head.length) made.append(row0);
    rows.forEach((cells) => {
      const row = element("tr");
      cells.forEach((c) => row.append(element("td", c)));
      made.append(row);
    });
    target.append(made);
  };
  const absent = (target, text) => target.append(element("p", text, "absent"));

  // --- header ------------------------------------------------------------------------
  $("title").textContent = D.title;
  const subtitle = $("subtitle");
  subtitle.append(element("span", D.simulated ? "simulated hardware" : "measured", "tag"));
  subtitle.append(`${D.start.slice(0, 19).replace("T", " ")} UTC · ended: ${D.ended}`);

  // --- frames ------------------------------------------------------------------------
  const F = D.frames, P = D.front, canvas = $("frame"), pen = canvas.getContext("2d");
  let bytes = null, wanted = -1, busy = false, lastBitmap = null;
  if (F) {
    const raw = atob(F.data);
    bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    F.data = null;
    const scale = Math.max(1, Math.ceil(900 / F.width));
    canvas.width = F.width * scale;
    canvas.height = F.height * scale;
    $("slider").max = F.t.length - 1;
  } else {
    canvas.hidden = true;
    $("controls").hidden = true;
    $("no-frames").hidden = false;
  }

  const nearest = (times, t) => {
    let low = 0, high = times.length - 1;
    while (high - low > 1) { const m = (low + high) >> 1; if (times[m] <= t) low = m; else high = m; }
    return Math.abs(times[low] - t) <= Math.abs(times[high] - t) ? low : high;
  };
  const at = (times, values, t) => values[nearest(times, t)];

  async function showFrame(i) {
    wanted = i;
    if (busy) return; // a fast hand never queues: only the last wish is drawn
    busy = true;
    while (wanted !== state.drawn) {
      const now = wanted;
      const part = bytes.subarray(F.offsets[now], F.offsets[now + 1]);
      const bitmap = await createImageBitmap(new Blob([part], { type: "image/jpeg" }));
      if (lastBitmap) lastBitmap.close();
      lastBitmap = bitmap;
      draw(bitmap, now);
      state.drawn = now;
    }
    busy = false;
  }

  function draw(bitmap, i) {
    const s = canvas.width / F.width;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const row = F.row[i];
    const dx = F.dx[i] ?? 0;
    if (P && P.x) {
      const line = (x, colour, dash) => {
        pen.strokeStyle = colour; pen.lineWidth = Math.max(2, canvas.width / 450);
        pen.setLineDash(dash); pen.beginPath();
        pen.moveTo((x - dx + 0.5) * s, 0); pen.lineTo((x - dx + 0.5) * s, canvas.height); pen.stroke();
      };
      line(P.x_interface, "#ffd54f", [10, 8]);
      const x = P.x[row], sigma = P.x_sigma[row];
      if (x !== null) {
        pen.fillStyle = "rgba(64,224,170,.30)";
        pen.fillRect((x - dx + 0.5 - sigma) * s, 0, 2 * sigma * s, canvas.height);
        line(x, "#40e0aa", []);
      }
      state.frontX = x === null ? null : x - dx;
    }
    if (F.pixel_nm) scaleBar(s);
  }

  function scaleBar(s) {
    const goal = (F.width * F.pixel_nm) / 5;
    const power = 10 ** Math.floor(Math.log10(goal));
    const length = [5, 2, 1].map((k) => k * power).find((l) => l <= goal) ?? power;
    const w = (length / F.pixel_nm) * s, u = canvas.width / 60;
    pen.setLineDash([]);
    pen.fillStyle = "rgba(0,0,0,.55)";
    pen.fillRect(u * 0.6, canvas.height - u * 2.9, w + u * 1.4, u * 2.5);
    pen.fillStyle = "#fff";
    pen.fillRect(u * 1.3, canvas.height - u * 0.95, w, u * 0.3);
    pen.font = `${u * 1.2}px system-ui, sans-serif`;
    pen.fillText(length >= 1000 ? `${length / 1000} µm` : `${length} nm`, u * 1.3, canvas.height - u * 1.3);
  }

  // --- charts ------------------------------------------------------------------------
  const axis = (label) => ({
    label, labelSize: 16, size: 62, stroke: css("--soft"), font: "12px system-ui", labelFont: "12px system-ui",
    grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 },
  });
  const shading = {
    hooks: { drawClear: [(u) => {
      D.spans.forEach((span) => {
        if (span.rest) return;
        const a = u.valToPos(span.from, "x", true), b = u.valToPos(span.to ?? u.scales.x.max, "x", true);
        u.ctx.fillStyle = css("--shade");
        u.ctx.fillRect(a, u.bbox.top, b - a, u.bbox.height);
      });
    }] },
  };
  function chart(target, title, data, series, height, options = {}) {
    const box = element("div");
    box.append(element("p", title, "chart-title"));
    target.append(box);
    const made = new uPlot({
      width: Math.max(300, target.clientWidth), height,
      scales: { x: { time: false } },
      axes: [{ ...axis(options.x ?? "time (s)"), size: 40 }, axis(options.y)],
      series: [{}, ...series], bands: options.bands ?? [],
      cursor: { drag: { x: !options.time, y: false }, points: { size: 6 } },
      legend: { show: false }, plugins: options.time ? [shading] : [],
    }, data, box);
    addEventListener("resize", () => { made.setSize({ width: Math.max(300, target.clientWidth), height }); setCursors(state.time); });
    if (options.time) linkChart(made);
    return made;
  }
  function linkChart(made) {
    state.charts.push(made);
    const move = (event) => {
      const box = made.over.getBoundingClientRect();
      goToTime(made.posToVal(event.clientX - box.left, "x"));
    };
    made.over.addEventListener("mousemove", move);
    made.over.addEventListener("click", move);
    made.over.addEventListener("mouseleave", () => setCursors(state.time));
  }
  function setCursors(t) {
    state.charts.forEach((c) => c.setCursor({ left: c.valToPos(t, "x"), top: 0 }, false));
    state.cursors = state.charts.map((c) => c.posToVal(c.cursor.left, "x"));
  }

  function readout(t) {
    const parts = [`t = ${t.toFixed(3)} s`];
    if (F) parts.push(`frame ${F.index[state.index]}`);
    if (D.traces) {
      const v = at(D.traces.t, D.traces.voltage, t), i = at(D.traces.t, D.traces.current, t);
      if (v !== null) parts.push(`V = ${v.toFixed(4)} V`);
      if (i !== null) parts.push(`I = ${Number(i.toPrecision(5))} ${D.traces.current_unit}`);
    }
    if (P) {
      const k = F ? F.row[state.index] : nearest(P.t, t), x = P.position[k];
      parts.push(x === null ? "front: not found in this frame" : `front ${x.toFixed(1)} ± ${(P.high[k] - x).toFixed(1)} nm`);
    }
    if (F && F.dose[state.index] !== null) parts.push(`dose ${F.dose[state.index].toFixed(1)} e/Å²`);
    $("readout").textContent = parts.join("   ·   ");
  }
  function goToTime(t) {
    if (F) return goTo(nearest(F.t, t), t);
    state.time = t; setCursors(t); readout(t);
  }
  function goTo(i, t) {
    state.index = Math.min(Math.max(i, 0), F.t.length - 1);
    state.time = t ?? F.t[state.index];
    $("slider").value = state.index;
    showFrame(state.index); setCursors(state.time); readout(state.time);
  }

  const traces = $("traces");
  if (D.traces) {
    chart(traces, "terminal voltage", [D.traces.t, D.traces.voltage], [{ stroke: css("--voltage"), width: 1.4 }], 190, { y: "V", time: true });
    chart(traces, "current, positive charges the cell", [D.traces.t, D.traces.current], [{ stroke: css("--current"), width: 1.4 }], 170, { y: D.traces.current_unit, time: true });
  } else absent(traces, "This session has no electrical readings.");
  if (P) {
    chart(traces, "front, depth from the electrolyte, with ± 1 sigma", [P.t, P.high, P.low, P.position],
      [{ stroke: "transparent" }, { stroke: "transparent" }, { stroke: css("--front"), width: 1.2 }], 190,
      { y: "nm", time: true, bands: [{ series: [1, 2], fill: css("--front") + "33" }] });
  } else if (F && F.drift_known) {
    const shift = (v) => v.map((d) => d);
    chart(traces, "drift: x solid, y dashed", [F.t, shift(F.dx), shift(F.dy)],
      [{ stroke: css("--front"), width: 1.4, points: { show: F.t.length < 60 } },
       { stroke: css("--voltage"), width: 1.4, dash: [6, 4], points: { show: F.t.length < 60 } }], 210, { y: "px", time: true });
    absent(traces, "No front was tracked in this session.");
  } else absent(traces, "Nothing was tracked in this session.");
  if (P && P.x) {
    const legend = $("legend");
    [["#2fbf90", "front ± 1 sigma"], ["#e0b400", "interface with the electrolyte"]].forEach(([colour, text]) => {
      const key = element("span", "", "key"); key.style.borderColor = colour; legend.append(key, text);
    });
  }

  // --- results -----------------------------------------------------------------------
  if (D.steps.length) {
    const terms = Object.keys(D.steps[0].charge);
    $("steps-note").textContent = "Speeds are fits over the step without its first 2 s; charges are those of the step alone.";
    table($("steps"), ["step", "held", "lasted", "ended because", "front speed", ...terms],
      D.steps.map((s) => [s.name, s.held, s.lasted, s.ended, s.speed, ...terms.map((t) => s.charge[t])]));
  } else $("why").hidden = true;

  const colours = { instrument: "--ink", ionic: "--front", leak: "--current", capacitive: "--voltage", dielectric: "--soft", beam: "--cursor" };
  if (D.ledger) {
    const known = Object.keys(D.ledger.terms).filter((t) => D.ledger.terms[t].value.some((v) => v !== null));
    const data = [D.ledger.t], series = [], bands = [];
    known.forEach((t) => {
      const k = data.length, term = D.ledger.terms[t];
      data.push(term.high, term.low, term.value);
      series.push({ stroke: "transparent" }, { stroke: "transparent" }, { stroke: css(colours[t]), width: 1.6 });
      bands.push({ series: [k, k + 1], fill: css(colours[t]) + "33" });
    });
    const legend = element("p", undefined, "chart-title");
    known.forEach((t) => { const key = element("span", "", "key"); key.style.borderColor = css(colours[t]); legend.append(key, t); });
    $("ledger").append(legend);
    chart($("ledger"), "cumulative, with ± 1 sigma", data, series, 260, { y: D.ledger.unit, time: true, bands });
    if (known.length < Object.keys(D.ledger.terms).length)
      absent($("ledger"), "No open-holder calibration: what the holder took, and so the ionic charge, is unknown.");
    table($("ledger-total"), ["term", "whole run"], D.ledger_total.map((r) => [r.term, r.value]));
  } else absent($("ledger"), "No electrical readings, so no ledger.");

  if (D.lag && !D.lag.lag) absent($("lag"), D.lag.verdict);
  else if (D.lag) {
    const L = D.lag, flat = (v) => L.lag.map(() => v);
    chart($("lag"), "correlation of front velocity with current; shaded: what chance gives (95 %)",
      [L.lag, flat(L.band), flat(-L.band), L.r],
      [{ stroke: css("--soft"), dash: [4, 4], points: { show: false } }, { stroke: css("--soft"), dash: [4, 4], points: { show: false } }, { stroke: css("--front"), width: 1.8 }],
      230, { x: "lag of the front behind the current (s)", y: "r", bands: [{ series: [1, 2], fill: css("--shade") }] });
    $("lag-text").textContent = `${L.verdict} r = ${L.r_max.toFixed(3)} at ${L.lag_at_max.toFixed(1)} s, p = ${L.p.toPrecision(2)}, ` +
      `false-discovery rate ${L.q.toPrecision(2)} (null: ${L.null}); ${L.effect}, 95 %; ${L.n} pairs, ${L.n_effective.toFixed(0)} effective.`;
  } else absent($("lag"), "Nothing to correlate: a tracked front and a current that varies are needed.");
  $("faraday").textContent = D.faraday
    ? `The front moved ${D.faraday.slope} of ionic charge, ${D.faraday.ratio} of what the geometry and the material say.`
    : "Needs a tracked front, a calibrated holder and a known material.";
  if (!D.faraday) $("faraday").className = "absent";
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
      $("dose-text").textContent = [
        `${dose.total} to the end of the last frame`,
        `at most ${dose.largest} on any part of the specimen`,
        `${dose.size} that the field has reached, ${dose.drift}`,
        ...(dose.blanked ? [`beam blanked for ${dose.blanked} of the time`] : []),
      ].join("\n");
    } else $("dose-text").textContent = "The dose is unknown.";
  }
  D.facts.forEach((f) => { const row = element("tr"); row.append(element("td", f.name), element("td", f.value)); $("facts").append(row); });
  table($("events"), [], D.events.map((e) => [`${e.t.toFixed(2).replace(/^-(0\.00)$/, "$1")} s`, e.text]));
  const versions = Object.entries(D.versions).map(([k, v]) => `${k} ${v}`).join(", ");
  $("footer").textContent = [...D.reductions.map((r) => `Reduced: ${r}.`), `Software: ${versions}.`].join(" ");

  // --- hands ---------------------------------------------------------------------------
  if (F) {
    $("slider").addEventListener("input", (e) => goTo(Number(e.target.value)));
    const play = $("play");
    play.addEventListener("click", () => { state.playing = !state.playing; play.textContent = state.playing ? "❚❚" : "▶"; if (state.playing) tick(); });
    const tick = () => {
      if (!state.playing) return;
      if (!busy) goTo(state.index + 1 >= F.t.length ? 0 : state.index + 1);
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
