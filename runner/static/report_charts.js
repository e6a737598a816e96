"use strict";
// Charts of a report: one description of each, drawn by uPlot, as an SVG figure, or written as CSV.
window.lamella = { index: 0, time: 0, drawn: -1, playing: false, charts: [], figures: [], go: () => {}, spans: [] };
const report = {
  css: (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim(),
  // For paper: a figure is drawn in these, whatever the screen prefers.
  PAPER: { ink: "#1c1e21", soft: "#5c636b", line: "#d9d6d0", voltage: "#2456a6", current: "#b3541e", front: "#0b7a5c", cursor: "#c2185b", violet: "#6b4aa8" },

  element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  },
  table(target, head, rows) {
    const made = report.element("table"), row0 = report.element("tr");
    head.forEach((h) => row0.append(report.element("th", h)));
    if (head.length) made.append(row0);
    rows.forEach((cells) => {
      const row = report.element("tr");
      cells.forEach((c) => row.append(report.element("td", c)));
      made.append(row);
    });
    target.append(made);
    return made;
  },
  save(name, parts, type) {
    const link = report.element("a"), url = URL.createObjectURL(new Blob(parts, { type }));
    link.href = url;
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  },
  nearest(times, t) {
    let low = 0, high = times.length - 1;
    while (high - low > 1) { const m = (low + high) >> 1; if (times[m] <= t) low = m; else high = m; }
    return Math.abs(times[low] - t) <= Math.abs(times[high] - t) ? low : high;
  },

  // A line: { label, values, colour, x (where not the chart's own), low, high, dash, width, points, bars }.
  // A chart: { title, file, x, xLabel, yLabel, lines, height, time, across: [{ at, label, colour }], upright: the same }.
  chart(target, spec) {
    const { element, css } = report, box = element("figure"), head = element("figcaption", undefined, "chart-title");
    head.append(element("span", spec.title, "what"));
    const named = spec.lines.filter((l) => l.label);
    if (named.length > 1 && named.length < 9) named.forEach((l) => {
      const key = element("span", "", "key"), name = element("span", "", "nowrap");
      key.style.borderColor = css(l.colour);
      if (l.dash) key.style.borderTopStyle = "dashed";
      name.append(key, l.label);
      head.append(name);
    });
    const links = element("span", undefined, "save");
    [["SVG", () => report.save(`${spec.file}.svg`, [report.svg(spec)], "image/svg+xml")],
      ["CSV", () => report.save(`${spec.file}.csv`, [report.csv(spec)], "text/csv")]].forEach(([name, does]) => {
      const button = element("button", name);
      button.type = "button";
      button.title = name === "SVG" ? "save this figure" : "save its numbers";
      button.addEventListener("click", does);
      links.append(button);
    });
    head.append(links);
    box.append(head);
    target.append(box);
    const tables = [], series = [{}], bands = [];
    spec.lines.forEach((line) => {
      const x = line.x ?? spec.x, colour = css(line.colour);
      if (line.low) {
        tables.push([x, line.high, line.low, line.values]);
        bands.push({ series: [series.length, series.length + 1], fill: `${colour}2e` });
        series.push({ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } });
      } else tables.push([x, line.values]);
      series.push({
        stroke: line.points === "only" ? "transparent" : colour, width: line.width ?? 1.4, dash: line.dash,
        points: { show: Boolean(line.points), size: 5, stroke: colour, fill: colour },
        ...(line.bars ? { paths: uPlot.paths.stepped({ align: 1 }), fill: `${colour}44` } : {}),
      });
    });
    const axis = (label) => ({
      label, labelSize: 16, size: 60, stroke: css("soft"), font: "12px system-ui", labelFont: "12px system-ui",
      grid: { stroke: css("line"), width: 1 }, ticks: { stroke: css("line"), width: 1 },
    });
    const same = tables.every((t) => t[0] === tables[0][0]);
    const height = spec.height ?? 190, wide = () => Math.max(240, Math.floor(target.clientWidth > box.clientWidth ? box.clientWidth : target.clientWidth));
    const made = new uPlot({
      width: wide(), height,
      scales: { x: { time: false }, ...(spec.range ? { y: { range: () => spec.range } } : {}) },
      axes: [{ ...axis(spec.xLabel ?? "time (s)"), size: 38 }, axis(spec.yLabel)],
      series, bands, cursor: { drag: { x: !spec.time, y: false }, points: { size: 6 } },
      legend: { show: false }, plugins: [report.shading(spec)],
    }, same ? [tables[0][0], ...tables.flatMap((t) => t.slice(1))] : uPlot.join(tables), box);
    addEventListener("resize", () => { made.setSize({ width: wide(), height }); report.setCursors(); });
    lamella.figures.push(spec);
    if (spec.time) report.link(made);
    return made;
  },
  shading: (spec) => ({
    hooks: { drawClear: [(u) => {
      if (!spec.time) return;
      lamella.spans.forEach((span) => {
        if (span.rest) return;
        const a = Math.max(u.bbox.left, u.valToPos(span.from, "x", true)), b = Math.min(u.bbox.left + u.bbox.width, u.valToPos(span.to ?? u.scales.x.max, "x", true));
        u.ctx.fillStyle = report.css("shade");
        if (b > a) u.ctx.fillRect(a, u.bbox.top, b - a, u.bbox.height);
      });
    }], draw: [(u) => {
      const { left, top, width, height } = u.bbox;
      [...(spec.across ?? []).map((l) => [l, u.valToPos(l.at, "y", true), false]), ...(spec.upright ?? []).map((l) => [l, u.valToPos(l.at, "x", true), true])].forEach(([l, at, upright]) => {
        u.ctx.save();
        u.ctx.strokeStyle = u.ctx.fillStyle = report.css(l.colour);
        u.ctx.lineWidth = 1.5 * devicePixelRatio;
        u.ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
        u.ctx.beginPath();
        if (upright) { u.ctx.moveTo(at, top); u.ctx.lineTo(at, top + height); } else { u.ctx.moveTo(left, at); u.ctx.lineTo(left + width, at); }
        u.ctx.stroke();
        u.ctx.font = `${12 * devicePixelRatio}px system-ui`;
        u.ctx.textAlign = upright && at > left + width / 2 ? "right" : "left";
        const d = 5 * devicePixelRatio;
        u.ctx.fillText(l.label, upright ? at + (at > left + width / 2 ? -d : d) : left + d, upright ? top + 3 * d : at - d);
        u.ctx.restore();
      });
    }] },
  }),
  link(made) {
    lamella.charts.push(made);
    const move = (event) => lamella.go(made.posToVal(event.clientX - made.over.getBoundingClientRect().left, "x"));
    made.over.addEventListener("mousemove", move);
    made.over.addEventListener("click", move);
    made.over.addEventListener("mouseleave", () => report.setCursors());
  },
  setCursors() {
    lamella.charts.forEach((c) => c.setCursor({ left: c.valToPos(lamella.time, "x"), top: 0 }, false));
    lamella.cursors = lamella.charts.map((c) => c.posToVal(c.cursor.left, "x"));
  },

  // --- a chart on paper ------------------------------------------------------------------------
  csv(spec) {
    const quoted = (s) => (/[",\n]/.test(s) ? `"${s.replaceAll('"', '""')}"` : s), many = spec.lines.some((l) => l.x);
    const blocks = spec.lines.map((line) => {
      const name = line.label || spec.title, head = [name, ...(line.low ? [`${name}, less 1 sigma`, `${name}, plus 1 sigma`] : [])].map((h) => `${h} (${spec.yLabel || "1"})`);
      return { x: line.x ?? spec.x, head, columns: [line.values, ...(line.low ? [line.low, line.high] : [])] };
    });
    const merged = many ? blocks.map((b) => ({ ...b })) : [{ x: spec.x, head: blocks.flatMap((b) => b.head), columns: blocks.flatMap((b) => b.columns) }];
    return merged.map((b) => [[spec.xLabel ?? "time (s)", ...b.head].map(quoted).join(","),
      ...b.x.map((x, i) => [x, ...b.columns.map((c) => c[i] ?? "")].join(","))].join("\n")).join("\n\n") + "\n";
  },
  svg(spec) {
    const W = 640, H = 400, M = { left: 74, right: 16, top: 44, bottom: 48 }, P = report.PAPER;
    const safe = (s) => String(s).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`), known = (v) => typeof v === "number" && Number.isFinite(v);
    const reach = (lists) => lists.reduce(([low, high], list) => list.reduce(([a, b], v) => (known(v) ? [Math.min(a, v), Math.max(b, v)] : [a, b]), [low, high]), [Infinity, -Infinity]);
    const xs = reach([...spec.lines.map((l) => l.x ?? spec.x), (spec.upright ?? []).map((l) => l.at)]);
    const ys = spec.range ?? reach([...spec.lines.flatMap((l) => (l.low ? [l.values, l.low, l.high] : [l.values])), (spec.across ?? []).map((l) => l.at), spec.lines.some((l) => l.bars) ? [0] : []]);
    const widen = ([a, b], share) => (known(a) && known(b) ? (b > a ? [a - share * (b - a), b + share * (b - a)] : [a - 1, b + 1]) : [0, 1]);
    const [x0, x1] = widen(xs, 0), [y0, y1] = spec.range ?? widen(ys, 0.05);
    const X = (v) => (M.left + ((v - x0) / (x1 - x0)) * (W - M.left - M.right)).toFixed(2), Y = (v) => (H - M.bottom - ((v - y0) / (y1 - y0)) * (H - M.top - M.bottom)).toFixed(2);
    const ticks = (a, b) => {
      const raw = (b - a) / 6, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find((k) => k * power >= raw) * power;
      return Array.from({ length: 20 }, (_, i) => (Math.ceil(a / step) + i) * step).filter((v) => v <= b * (1 + 1e-12) + 1e-12 * step).map((v) => Number(v.toPrecision(12)));
    };
    const runs = (x, rows) => { // stretches in which all numbers are known
      const found = [];
      let now = null;
      x.forEach((v, i) => { if (known(v) && rows.every((r) => known(r[i]))) { if (!now) found.push((now = [])); now.push(i); } else now = null; });
      return found;
    };
    const out = [`<svg xmlns="http://www.w3.org/2000/svg" width="${W}" height="${H}" viewBox="0 0 ${W} ${H}" font-family="Helvetica, Arial, sans-serif" font-size="13" fill="${P.ink}">`,
      `<rect width="${W}" height="${H}" fill="#fff"/>`, `<clipPath id="inside"><rect x="${M.left}" y="${M.top}" width="${W - M.left - M.right}" height="${H - M.top - M.bottom}"/></clipPath>`];
    ticks(x0, x1).forEach((v) => out.push(`<path d="M${X(v)} ${M.top}V${H - M.bottom}" stroke="${P.line}"/><text x="${X(v)}" y="${H - M.bottom + 17}" text-anchor="middle">${v}</text>`));
    ticks(y0, y1).forEach((v) => out.push(`<path d="M${M.left} ${Y(v)}H${W - M.right}" stroke="${P.line}"/><text x="${M.left - 7}" y="${Number(Y(v)) + 4}" text-anchor="end">${v}</text>`));
    out.push('<g clip-path="url(#inside)">');
    spec.lines.forEach((l) => {
      const x = l.x ?? spec.x, ink = P[l.colour] ?? P.ink;
      if (l.low) runs(x, [l.low, l.high]).forEach((run) => out.push(`<path d="M${[...run.map((i) => `${X(x[i])} ${Y(l.high[i])}`), ...[...run].reverse().map((i) => `${X(x[i])} ${Y(l.low[i])}`)].join("L")}Z" fill="${ink}" fill-opacity=".18"/>`));
      if (l.points) x.forEach((v, i) => { if (known(v) && known(l.values[i])) out.push(`<circle cx="${X(v)}" cy="${Y(l.values[i])}" r="2.4" fill="${ink}"/>`); });
      if (l.points !== "only") runs(x, [l.values]).forEach((run) => {
        const d = l.bars ? run.map((i) => `${X(x[i])} ${Y(l.values[i])}${i + 1 < x.length ? `H${X(x[i + 1])}` : ""}`).join("V").replace(/V(\S+) (\S+)/g, "V$2") : run.map((i) => `${X(x[i])} ${Y(l.values[i])}`).join("L");
        out.push(`<path d="M${d}" fill="none" stroke="${ink}" stroke-width="${l.width ?? 1.4}"${l.dash ? ` stroke-dasharray="${l.dash.join(" ")}"` : ""}/>`);
      });
    });
    out.push("</g>");
    (spec.across ?? []).forEach((l) => out.push(`<path d="M${M.left} ${Y(l.at)}H${W - M.right}" stroke="${P[l.colour] ?? P.ink}" stroke-dasharray="6 4"/><text x="${M.left + 5}" y="${Number(Y(l.at)) - 5}" fill="${P[l.colour] ?? P.ink}">${safe(l.label)}</text>`));
    (spec.upright ?? []).forEach((l) => { const right = Number(X(l.at)) > W / 2; out.push(`<path d="M${X(l.at)} ${M.top}V${H - M.bottom}" stroke="${P[l.colour] ?? P.ink}" stroke-dasharray="6 4"/><text x="${Number(X(l.at)) + (right ? -5 : 5)}" y="${M.top + 14}" text-anchor="${right ? "end" : "start"}" fill="${P[l.colour] ?? P.ink}">${safe(l.label)}</text>`); });
    out.push(`<path d="M${M.left} ${M.top}V${H - M.bottom}H${W - M.right}" fill="none" stroke="${P.ink}"/>`,
      `<text x="${M.left}" y="20" font-weight="bold">${safe(spec.title)}</text>`,
      `<text x="${(M.left + W - M.right) / 2}" y="${H - 12}" text-anchor="middle">${safe(spec.xLabel ?? "time (s)")}</text>`,
      `<text transform="translate(17 ${(M.top + H - M.bottom) / 2}) rotate(-90)" text-anchor="middle">${safe(spec.yLabel)}</text>`);
    let at = M.left;
    const named = spec.lines.filter((l) => l.label);
    if (named.length > 1 && named.length < 9) named.forEach((l) => {
      out.push(`<path d="M${at} 33h16" stroke="${P[l.colour] ?? P.ink}" stroke-width="2.5"/><text x="${at + 21}" y="37" font-size="11">${safe(l.label)}</text>`);
      at += 36 + 6.2 * l.label.length;
    });
    return [...out, "</svg>"].join("\n");
  },
};
