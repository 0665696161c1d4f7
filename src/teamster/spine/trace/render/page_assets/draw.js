// Bars on the canvas. What is narrower than about a pixel is not drawn one by one: a pixel's column gets the colour of the kind
// that takes most of it, as strong as the share that is taken. So a frame costs pixels, not spans.

const NARROW = 1.5;    // pixels; from here on a span is a bar of its own
const COLUMN = 1;      // pixels
const STRENGTHS = 10;  // of a column; few, so that neighbours are often alike and drawn as one
const FADED = 0.16;
const canvas = byId('canvas');
const pen = canvas.getContext('2d');
let due = 0;

function redraw() {
  if (!due) due = requestAnimationFrame(drawNow);
}

function drawNow() {
  cancelAnimationFrame(due);
  due = 0;
  const began = performance.now();
  pen.setTransform(app.ratio, 0, 0, app.ratio, 0, 0);
  pen.fillStyle = app.colours.surface;
  pen.fillRect(0, 0, app.width, app.height);
  pen.save();
  pen.beginPath();
  pen.rect(0, app.fixed, app.width, app.height - app.fixed);
  pen.clip();
  for (const row of app.rows) if (!row.fixed) drawRow(row);
  drawMarks();
  pen.restore();
  for (const row of app.rows) if (row.fixed) drawRow(row);
  drawAxis();
  drawSeparators();
  drawCrosshair();
  app.frameMs = performance.now() - began;
}

function drawRow(row) {
  const y = top(row);
  if (y + row.height < 0 || y > app.height) return;
  if (row.type === 'lane') drawLane(row, y);
  else if (row.type === 'heading') drawHeading(row, y);
  else drawCurve(row, y);
}

function inPlot(draw) {
  pen.save();
  pen.beginPath();
  pen.rect(app.left, 0, plotWidth() + PLOT_MARGIN, app.height);
  pen.clip();
  draw();
  pen.restore();
}

function drawLane(row, y) {
  const { lane, group } = row;
  inPlot(() => {
    drawPresence(row, y);
    for (const track of lane.tracks) {
      const at = { y: y + trackTop(row, track.depth), height: trackHeight(row, track.depth) };
      if (track.depth === WAITING) Object.assign(at, { y: at.y + Math.round((at.height - WAIT_LINE) / 2), height: WAIT_LINE });
      pen.globalAlpha = app.found ? FADED : 1;
      drawTrack(group, track, at);
      pen.globalAlpha = 1;
      if (app.found) drawFound(group, track, at);
    }
    for (const each of [app.picked, app.hover]) if (each && each.group === group && each.lane === lane) outline(each);
  });
  drawName(row, y);
  line(0, y + row.height - 0.5, app.width, app.colours.line);
}

/** A band while the worker was there. */
function drawPresence(row, y) {
  const { lane, group, size } = row;
  pen.fillStyle = app.colours.track;
  for (const [begin, end] of livesOf(lane, group)) {
    const from = Math.max(app.left, xOf(begin));
    const to = Math.min(app.width, xOf(end));
    if (to > from) pen.fillRect(from, y + size.pad - 1, to - from, row.height - size.pad * 2 + 2);
  }
}

function xOf(ns) { return app.left + (ns - viewBegin()) * perNs(); }

/** The spans of a track from `t0` to `t1`, as a range of its positions. */
function range(track, t0, t1) {
  const n = track.begin.length;
  return [firstAbove(track.reach, t0, 0, n), firstAbove(track.begin, t1, 0, n)];
}

function drawTrack(group, track, at) {
  const t0 = viewBegin();
  const scale = perNs();
  const left = app.left;
  const [first, stop] = range(track, t0, timeAt(app.width));
  const wide = (j) => (track.end[j] - track.begin[j]) * scale >= NARROW;
  const columns = columnsOf(at);
  let j = first;
  while (j < stop) {
    const x = left + (track.begin[j] - t0) * scale;
    if (wide(j)) {
      if (app.shown[group.kind[track.ids[j]]]) drawBar(group, track, j, x, (track.end[j] - track.begin[j]) * scale, at);
      j += 1;
      continue;
    }
    const column = Math.floor(x / COLUMN) * COLUMN;
    let next = gallop(track.begin, t0 + (column + COLUMN - left) / scale, j, stop);
    while (next > j + 1 && wide(next - 1)) next -= 1;
    columns.add(track, j, Math.max(next, j + 1), column, scale);
    j = Math.max(next, j + 1);
  }
  columns.flush();
}

/** Collects columns, and draws those that stand together and look alike in one go. */
function columnsOf(at) {
  let x = 0;
  let width = 0;
  let kind = -1;
  let strength = 0;
  const alpha = pen.globalAlpha;
  function flush() {
    if (!width) return;
    pen.globalAlpha = alpha * (0.14 + 0.86 * strength / STRENGTHS);
    pen.fillStyle = app.colours[KINDS[kind]];
    pen.fillRect(x, at.y, width, at.height);
    pen.globalAlpha = alpha;
    width = 0;
  }
  function add(track, from, to, column, scale) {
    let most = -1;
    let best = -1;
    let all = 0;
    for (const { kind: each, total: sums } of track.sums) {
      const taken = sums[to] - sums[from];
      if (!app.shown[each]) continue;
      all += taken;
      if (taken > most && (taken > 0 || best < 0)) { most = taken; best = each; }
    }
    if (best < 0) return;
    const level = Math.ceil(Math.min(1, all * scale / COLUMN) * STRENGTHS);
    if (width && column === x + width && best === kind && level === strength) { width += COLUMN; return; }
    flush();
    x = column; width = COLUMN; kind = best; strength = level;
  }
  return { add, flush };
}

function drawBar(group, track, j, x, width, at) {
  const kind = group.kind[track.ids[j]];
  // Cut at the canvas: a bar that is a million pixels wide is not drawn exactly by every browser.
  const from = Math.max(app.left - 8, x);
  const to = Math.min(app.width + 8, x + width);
  const gap = width >= 4 ? 1 : 0;
  pen.fillStyle = app.colours[KINDS[kind]];
  if (to - from >= 7 && at.height > WAIT_LINE) {
    pen.beginPath();
    pen.roundRect(from, at.y, to - from - gap, at.height, 2);
    pen.fill();
  } else {
    pen.fillRect(from, at.y, to - from - gap, at.height);
  }
  if (at.height >= 13) drawLabel(group, track.ids[j], Math.max(app.left, from), to - gap, at);
}

function labelOf(group, i) {
  const name = nameOf(group, i);
  if (group.kind[i] === COMPUTE && group.argument[i] >= 0) return `${name} #${group.argument[i]}`;
  return CARRIES_BYTES.has(group.kind[i]) && group.argument[i] >= 0 ? `${name} ${showBytes(group.argument[i])}` : name;
}

/** Where the whole does not fit, the index of an item says more than the first letters of a name that all items have. */
function shortLabel(group, i, room) {
  const text = labelOf(group, i);
  if (group.kind[i] !== COMPUTE || group.argument[i] < 0 || textWidth(text) <= room) return shortened(text, room);
  const index = `#${group.argument[i]}`;
  return textWidth(index) <= room ? index : '';
}

function drawLabel(group, i, from, to, at) {
  const room = to - from - 8;
  if (room < 14) return;
  pen.font = at.height >= 20 ? app.fonts.bar : app.fonts.small;
  const text = shortLabel(group, i, room);
  if (!text) return;
  pen.fillStyle = app.colours[`${KINDS[group.kind[i]]}-ink`];
  pen.textBaseline = 'middle';
  pen.textAlign = 'left';
  pen.fillText(text, from + 4, at.y + at.height / 2 + 0.5);
}

const widths = new Map();

function textWidth(text) {
  const key = `${pen.font}|${text}`;
  if (!widths.has(key)) {
    if (widths.size > 20000) widths.clear();
    widths.set(key, pen.measureText(text).width);
  }
  return widths.get(key);
}

/** The text, or as much of it as there is room for; nothing where that would be less than three letters. */
function shortened(text, room) {
  const width = textWidth(text);
  if (width <= room) return text;
  const letters = Math.floor(text.length * (room - textWidth('…')) / width);
  return letters >= 3 ? `${text.slice(0, letters).trimEnd()}…` : '';
}

/** Spans that the search found, over the faded rest; one a pixel is enough. */
function drawFound(group, track, at) {
  if (!group.hit) return;
  const t0 = viewBegin();
  const scale = perNs();
  const [first, stop] = range(track, t0, timeAt(app.width));
  let drawn = -Infinity;
  for (let j = first; j < stop; j += 1) {
    const i = track.ids[j];
    if (!group.hit[i] || !app.shown[group.kind[i]]) continue;
    const x = app.left + (track.begin[j] - t0) * scale;
    const width = (track.end[j] - track.begin[j]) * scale;
    if (width >= NARROW) { drawBar(group, track, j, x, width, at); continue; }
    if (x < drawn + 1) continue;
    drawn = Math.floor(x);
    pen.fillStyle = app.colours[KINDS[group.kind[i]]];
    pen.fillRect(drawn, at.y, 1.5, at.height);
  }
  const now = app.found.now;
  if (now && now.group === group && trackWith(now.lane, now.i) === track) outline(now, app.colours.found);
}

function outline(each, colour = app.colours.ink) {
  const { x, y, width, height } = rectOf(each.group, each.i);
  const from = Math.max(app.left - 9, x);
  const to = Math.min(app.width + 9, x + Math.max(width, 2));
  pen.lineWidth = 2;
  pen.strokeStyle = colour;
  pen.beginPath();
  pen.roundRect(from - 1, y - 1, Math.max(2, to - from) + 1, height + 2, 3);
  pen.stroke();
}

function shortName(label) {
  return app.left >= 120 ? label : label.replace(/^process /, 'proc ').replace(/^interpreter /, 'interp ');
}

function drawName(row, y) {
  const { lane, size } = row;
  const middle = y + size.pad + size.main / 2 + 0.5;
  const share = showShare(lane.busy);
  pen.font = app.fonts.soft;
  pen.textBaseline = 'middle';
  pen.textAlign = 'right';
  const taken = app.left >= 120 ? textWidth(share) + 10 : 0;
  pen.fillStyle = app.colours['ink-soft'];
  if (taken) pen.fillText(share, app.left - 10, middle);
  pen.font = size.main >= 20 ? app.fonts.name : app.fonts.soft;
  pen.textAlign = 'left';
  pen.fillStyle = app.colours.ink;
  pen.fillText(shortened(shortName(lane.label), app.left - 20 - taken), 12, middle);
}

function drawHeading(row, y) {
  const { group } = row;
  pen.fillStyle = app.colours.band;
  pen.fillRect(0, y, app.width, row.height);
  pen.textBaseline = 'middle';
  pen.textAlign = 'left';
  pen.font = app.fonts.heading;
  pen.fillStyle = app.colours.ink;
  const name = shortened(group.name, app.width * 0.55);
  pen.fillText(name, 12, y + row.height / 2);
  const after = 12 + textWidth(name) + 14;
  pen.font = app.fonts.soft;
  pen.fillStyle = app.colours['ink-soft'];
  const facts = [showTime(group.ns), `${showShare(utilization(group, 0, group.ns))} at work`, plural(group.spans, 'span')].join(' · ');
  pen.fillText(shortened(facts, app.width - after - 10), after, y + row.height / 2 + 0.5);
  line(0, y + 0.5, app.width, app.colours.line);
  line(0, y + row.height - 0.5, app.width, app.colours.line);
}

function line(x, y, toX, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(toX, y);
  pen.stroke();
}
