"use strict";
// Frames of a report with what was seen in them; the newest wish is drawn, and never a queue of them.
report.INKS = ["#40e0aa", "#4cd4ff", "#ff9d62", "#d0a6ff"];
report.EDGE = "#ffd54f";
report.RULE = "#ffb454";

// Draw the marks of frame i at so many dots for a pixel of the camera.
report.drawMarks = (pen, marks, i, s, width, height) => {
  const tracks = [...new Set(marks.map((m) => m.track))], thick = Math.max(2, width / 450);
  const known = (v) => v !== null && v !== undefined;
  let drawn = 0;
  marks.forEach((m) => {
    const x = m.x ? m.x[i] : undefined, y = m.y ? m.y[i] : undefined;
    if ((m.x && !known(x)) || (m.y && !known(y))) return;
    drawn += 1;
    const ink = m.moves ? report.INKS[tracks.indexOf(m.track) % report.INKS.length] : report.EDGE, state = m.state ? m.state[i] : null;
    const at = (v) => (v + 0.5) * s, sigma = m.sigma && known(m.sigma[i]) ? m.sigma[i] * s : 0;
    pen.strokeStyle = known(state) ? `hsl(${220 - 195 * Math.min(1, Math.max(0, state))} 90% 62%)` : ink;
    pen.lineWidth = thick;
    const circle = m.x && m.y;
    pen.setLineDash(m.moves || circle ? [] : [5 * thick, 4 * thick]);
    pen.beginPath();
    if (circle) pen.arc(at(x), at(y), m.radius ? Math.max(m.radius * s, 2 * thick) : Math.max(sigma, 5 * thick), 0, 2 * Math.PI);
    else {
      pen.fillStyle = `${ink}4c`;
      if (m.x) { pen.fillRect(at(x) - sigma, 0, 2 * sigma, height); pen.moveTo(at(x), 0); pen.lineTo(at(x), height); }
      else { pen.fillRect(0, at(y) - sigma, width, 2 * sigma); pen.moveTo(0, at(y)); pen.lineTo(width, at(y)); }
    }
    pen.stroke();
    pen.setLineDash([]);
  });
  return drawn;
};
report.drawRule = (pen, rule, s, width, height) => {
  if (!rule) return;
  pen.strokeStyle = report.RULE;
  pen.lineWidth = Math.max(2, width / 300);
  pen.setLineDash([8, 5]);
  pen.beginPath();
  if (rule.x !== undefined) { pen.moveTo((rule.x + 0.5) * s, 0); pen.lineTo((rule.x + 0.5) * s, height); } else { pen.moveTo(0, (rule.y + 0.5) * s); pen.lineTo(width, (rule.y + 0.5) * s); }
  pen.stroke();
  pen.setLineDash([]);
};
report.legend = (target, marks) => {
  const tracks = [...new Set(marks.map((m) => m.track))], said = new Set();
  const key = (ink, text) => {
    if (said.has(text)) return;
    said.add(text);
    const mark = report.element("span", "", "key"), name = report.element("span", "", "nowrap");
    mark.style.borderColor = ink;
    name.append(mark, text);
    target.append(name);
  };
  marks.forEach((m) => {
    if (m.state) key("hsl(220 90% 62%)", `${m.track}: particles at state 0`), key("hsl(25 90% 62%)", "at state 1");
    else key(m.moves ? report.INKS[tracks.indexOf(m.track) % report.INKS.length] : report.EDGE, `${m.thing === m.track ? "" : `${m.track}: `}${m.thing}${m.moves && m.sigma ? " ± 1 sigma" : ""}`);
  });
};

report.frames = (F, marks) => {
  const canvas = document.getElementById("frame"), pen = canvas.getContext("2d"), raw = atob(F.data), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  F.data = null;
  const scale = Math.max(1, Math.ceil(900 / F.width));
  canvas.width = F.width * scale;
  canvas.height = F.height * scale;
  let wanted = -1, busy = false, last = null;
  function draw(bitmap, i) {
    pen.imageSmoothingEnabled = false;
    pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    lamella.marksDrawn = report.drawMarks(pen, marks, i, scale, canvas.width, canvas.height);
    if (F.pixel_nm) scaleBar(scale);
  }
  function scaleBar(s) {
    const goal = (F.width * F.pixel_nm) / 5, power = 10 ** Math.floor(Math.log10(goal));
    const length = [5, 2, 1].map((k) => k * power).find((l) => l <= goal) ?? power, w = (length / F.pixel_nm) * s, u = canvas.width / 60;
    const said = length >= 1000 ? `${length / 1000} µm` : `${Number(length.toPrecision(3))} nm`;
    pen.font = `${u * 1.2}px system-ui, sans-serif`;
    pen.fillStyle = "rgba(0,0,0,.55)";
    pen.fillRect(u * 0.6, canvas.height - u * 2.9, Math.max(w, pen.measureText(said).width) + u * 1.4, u * 2.5);
    pen.fillStyle = "#fff";
    pen.fillRect(u * 1.3, canvas.height - u * 0.95, w, u * 0.3);
    pen.fillText(said, u * 1.3, canvas.height - u * 1.3);
  }
  return {
    isBusy: () => busy,
    async show(i) {
      wanted = i;
      if (busy) return;
      busy = true;
      while (wanted !== lamella.drawn) {
        const now = wanted, bitmap = await createImageBitmap(new Blob([bytes.subarray(F.offsets[now], F.offsets[now + 1])], { type: "image/jpeg" }));
        if (last) last.close();
        last = bitmap;
        draw(bitmap, now);
        lamella.drawn = now;
      }
      busy = false;
    },
    save: () => canvas.toBlob((blob) => report.save(`frame_${F.index[lamella.index]}.png`, [blob], "image/png"), "image/png"),
  };
};
