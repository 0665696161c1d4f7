// From the columns in the page to what is drawn.
//
//   group    one timeline: begin, end, argument, count, called, kind as typed arrays, all lanes behind each other
//   lane     first, spans: its part of them, in the order of begin
//   track    spans of a lane that stand beside each other in one row; depth 0, 1, ... by containment, -1 for waits,
//            a half for what was drawn together with its neighbours and now lies over other work

const DEEPEST = 7;
const WAITING = -1;
const STRIP = 0.5;

const meta = JSON.parse(byId('data').textContent);
const KINDS = meta.kinds;
const WAIT = KINDS.indexOf('wait');
const COMPUTE = KINDS.indexOf('compute');
const USER = KINDS.indexOf('span');
const CARRIES_BYTES = new Set([KINDS.indexOf('serialise'), KINDS.indexOf('transfer')]);
const atWork = KINDS.map((_, kind) => meta.atWork.includes(kind));

async function inflate(text) {
  const packed = atob(text);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(stream).arrayBuffer();
}

/** 64-bit integers as floats, which hold 104 days of nanoseconds. */
function wide(buffer, offset, n) {
  const view = new DataView(buffer, offset, n * 8);
  const values = new Float64Array(n);
  for (let i = 0; i < n; i += 1) values[i] = view.getInt32(i * 8 + 4, true) * 4294967296 + view.getUint32(i * 8, true);
  return values;
}

async function decodeGroup(described, index) {
  const group = { ...described, index, columns: null };
  const n = group.lanes.reduce((sum, lane) => sum + lane.spans, 0);
  const buffer = await inflate(described.columns);
  group.spans = n;
  group.ns = Math.max(1, group.ns);
  group.begin = wide(buffer, 0, n);
  group.end = wide(buffer, n * 8, n);
  group.argument = wide(buffer, n * 16, n);
  group.count = new Uint32Array(buffer.slice(n * 24, n * 28));
  group.called = new Uint16Array(buffer.slice(n * 28, n * 30));
  group.kind = new Uint8Array(buffer, n * 30, n);
  group.hit = null;
  let first = 0;
  for (const [at, lane] of group.lanes.entries()) {
    Object.assign(lane, { index: at, group, first });
    let now = 0;
    for (let i = first; i < first + lane.spans; i += 1) {
      now += group.begin[i];
      group.begin[i] = now;
      group.end[i] += now;
    }
    first += lane.spans;
    lane.tracks = tracksOf(group, lane);
    lane.depth = lane.tracks.reduce((most, track) => Math.max(most, track.depth), 0);
    summarise(group, lane);
  }
  group.work = group.work ? coarseWork(group) : workOf(group);
  return group;
}

function laneOf(group, i) {
  let low = 0;
  let high = group.lanes.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (group.lanes[middle].first <= i) low = middle; else high = middle - 1;
  }
  return group.lanes[low];
}

function nameOf(group, i) { return group.names[group.called[i]] || KINDS[group.kind[i]]; }

function tracksOf(group, lane) {
  const rows = new Map();
  const open = [];
  for (let i = lane.first; i < lane.first + lane.spans; i += 1) {
    const depth = group.kind[i] === WAIT ? WAITING : depthIn(group, open, i);
    if (!rows.has(depth)) rows.set(depth, []);
    rows.get(depth).push(i);
  }
  return [...rows].sort((a, b) => a[0] - b[0]).map(([depth, list]) => trackOf(group, depth, list));
}

/** A span that stands for many may only seem to contain others: it began before them and its last part ended after them. */
function contains(group, outer, inner) {
  return group.count[outer] === 1 || (group.kind[outer] === COMPUTE && group.kind[inner] === USER);
}

function depthIn(group, open, i) {
  while (open.length && group.end[open[open.length - 1].i] <= group.begin[i]) open.pop();
  const under = open.filter((each) => group.end[each.i] > group.begin[i]);
  const outer = under.findLast((each) => contains(group, each.i, i));
  let depth = outer ? Math.min(DEEPEST, Math.floor(outer.depth) + 1) : 0;
  if (!outer && under.length && group.kind[i] !== COMPUTE) depth = STRIP;
  open.push({ i, depth });
  return depth;
}

/** With sums by kind, so that a pixel that holds thousands of spans costs as much as one that holds two. */
function trackOf(group, depth, list) {
  const n = list.length;
  const track = { depth, ids: Uint32Array.from(list), begin: new Float64Array(n), end: new Float64Array(n), reach: new Float64Array(n), sums: [] };
  let reach = -Infinity;
  for (let j = 0; j < n; j += 1) {
    const i = list[j];
    const kind = group.kind[i];
    track.begin[j] = group.begin[i];
    track.end[j] = group.end[i];
    reach = Math.max(reach, group.end[i]);
    track.reach[j] = reach;
    if (!track.sums.some((each) => each.kind === kind)) track.sums.push({ kind, total: new Float64Array(n + 1) });
  }
  for (const { kind, total } of track.sums) {
    for (let j = 0; j < n; j += 1) total[j + 1] = total[j] + (group.kind[list[j]] === kind ? track.end[j] - track.begin[j] : 0);
  }
  return track;
}

/** Edges of the union of a lane's work, as two arrays of moments. */
function workEdges(group, lane) {
  const from = [];
  const to = [];
  let covered = -Infinity;
  for (let i = lane.first; i < lane.first + lane.spans; i += 1) {
    if (!atWork[group.kind[i]] || group.end[i] <= covered) continue;
    if (group.begin[i] > covered) { from.push(group.begin[i]); to.push(group.end[i]); } else to[to.length - 1] = group.end[i];
    covered = group.end[i];
  }
  return { from, to };
}

function summarise(group, lane) {
  const { from, to } = workEdges(group, lane);
  let busy = 0;
  for (let k = 0; k < from.length; k += 1) busy += Math.min(to[k], group.ns) - Math.max(0, from[k]);
  lane.edges = { from, to };
  lane.busy = group.busy ? group.busy[lane.index] : Math.min(1, Math.max(0, busy) / group.ns);
  lane.items = 0;
  lane.longest = -1;
  for (let i = lane.first; i < lane.first + lane.spans; i += 1) {
    if (group.kind[i] === COMPUTE) lane.items += group.count[i];
    if (group.kind[i] === WAIT) continue;
    if (lane.longest < 0 || group.end[i] - group.begin[i] > group.end[lane.longest] - group.begin[lane.longest]) lane.longest = i;
  }
}

/** When the worker of a lane was there, within the timeline. */
function livesOf(lane, group) {
  const lives = lane.lives.length ? lane.lives : [[0, group.ns]];
  return lives.map(([begin, end]) => [Math.max(0, begin), Math.min(group.ns, end)]);
}

/** How many lanes are at work, and how many are there. */
function workOf(group) {
  const workers = group.lanes.filter((lane) => lane.kind !== 'caller');
  const lanes = workers.length ? workers : group.lanes;
  const work = stepsOf(lanes.flatMap((lane) => lane.edges.from), lanes.flatMap((lane) => lane.edges.to));
  const lives = lanes.flatMap((lane) => livesOf(lane, group)).filter(([begin, end]) => end > begin);
  group.there = stepsOf(lives.map(([begin]) => begin), lives.map(([, end]) => end));
  for (const lane of group.lanes) lane.edges = null;
  return work;
}

/** How many of some intervals hold at a moment, as steps with the integral up to each: any window then costs two searches. */
function stepsOf(begins, ends) {
  const from = Float64Array.from(begins).sort();
  const to = Float64Array.from(ends).sort();
  const n = from.length * 2;
  const work = { at: new Float64Array(n), level: new Int32Array(n), sum: new Float64Array(n) };
  for (let k = 0, a = 0, b = 0, level = 0, sum = 0, before = 0; k < n; k += 1) {
    const rises = a < from.length && from[a] < to[b];
    const at = rises ? from[a] : to[b];
    sum += level * (at - before);
    before = at;
    if (rises) { level += 1; a += 1; } else { level -= 1; b += 1; }
    work.at[k] = at;
    work.level[k] = level;
    work.sum[k] = sum;
  }
  return work;
}

/** Where spans were drawn together the gaps between them are gone, and the page has a curve that was counted before. */
function coarseWork(group) {
  const n = group.work.length;
  const step = group.ns / n;
  const work = { at: new Float64Array(n), level: Float64Array.from(group.work), sum: new Float64Array(n) };
  group.there = stepsOf([0], [group.ns]);
  for (let k = 1; k < n; k += 1) {
    work.at[k] = k * step;
    work.sum[k] = work.sum[k - 1] + work.level[k - 1] * step;
  }
  return work;
}

function workUntil(work, t) {
  const k = firstAbove(work.at, t, 0, work.at.length) - 1;
  return k < 0 ? 0 : work.sum[k] + work.level[k] * (t - work.at[k]);
}

/** Share of the workers that are there which is at work between two moments. */
function utilization(group, t0, t1) {
  const there = workUntil(group.there, t1) - workUntil(group.there, t0);
  return there > 0 ? Math.min(1, (workUntil(group.work, t1) - workUntil(group.work, t0)) / there) : 0;
}

/** The value of a curve at a moment: that of the point before; NaN outside of it. */
function valueAt(curve, t) {
  const k = firstAbove(curve.at, t, 0, curve.at.length) - 1;
  return k < 0 ? NaN : curve.value[k];
}
