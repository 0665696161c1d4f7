// Put it together: colours, legend, buttons; then decode and draw. `window.teamster` is for tests and for the curious.

const COLOURS = ['surface', 'track', 'band', 'line', 'line-strong', 'ink', 'ink-soft', 'curve', 'mark', 'trouble', 'found'];

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = [...COLOURS, ...KINDS, ...KINDS.map((kind) => `${kind}-ink`)];
  app.colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  const family = style.getPropertyValue('--font').trim();
  app.fonts = {
    bar: `11.5px ${family}`, small: `10px ${family}`, soft: `11.5px ${family}`, name: `12.5px ${family}`, heading: `600 13px ${family}`,
  };
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  readColours();
  redraw();
}

function switchTheme() { setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'); }

function setUpButtons() {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  dark.addEventListener('change', () => setTheme(dark.matches ? 'dark' : 'light'));
  byId('theme').addEventListener('click', switchTheme);
  byId('help').addEventListener('click', () => byId('keys').showModal());
  byId('keys').addEventListener('click', (event) => { if (event.target === byId('keys')) byId('keys').close(); });
  byId('in').addEventListener('click', () => zoomBy(2));
  byId('out').addEventListener('click', () => zoomBy(0.5));
  byId('fit').addEventListener('click', fit);
}

function fillLegend() {
  const present = KINDS.map(() => false);
  for (const group of app.groups) for (let i = 0; i < group.spans; i += 1) present[group.kind[i]] = true;
  KINDS.forEach((name, kind) => {
    if (!present[kind]) return;
    const button = make('button', { type: 'button', 'aria-pressed': 'true', title: `Hide or show ${name}`, 'data-kind': name },
      make('i', { swatch: name, class: kind === WAIT ? 'thin' : '' }), kind === USER ? 'your spans' : name);
    button.addEventListener('click', () => {
      app.shown[kind] = !app.shown[kind];
      button.setAttribute('aria-pressed', String(app.shown[kind]));
      redraw();
    });
    byId('legend').append(button);
  });
}

function fillFacts() {
  const { groups } = app;
  const sum = (of) => groups.reduce((all, group) => all + of(group), 0);
  const facts = groups.length > 1 ? [plural(groups.length, 'timeline')] : [showTime(groups[0].ns), `${showShare(utilization(groups[0], 0, groups[0].ns))} at work`];
  facts.push(plural(sum((group) => group.lanes.length), 'lane'), plural(sum((group) => group.spans), 'span'));
  const started = groups[0].started;
  if (started > 0) facts.push(new Date(started * 1000).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' }));
  byId('facts').replaceChildren(...facts.map((fact) => make('span', {}, fact)));
  canvas.setAttribute('aria-label', `Timeline: ${facts.join(', ')}. Workers are listed below, with what each did.`);
}

function resize() {
  const { begin, end } = measure();
  show(begin, end, false);
  drawNow();
}

/** What a test asks; times are seconds, rectangles are CSS pixels on the canvas. */
function offer() {
  window.teamster = {
    ready: null, canvas, drawMs: null, readyMs: null,
    view: () => ({ t0: viewBegin() / 1e9, t1: viewEnd() / 1e9 }),
    zoomTo: (t0, t1) => { show(t0 * 1e9, t1 * 1e9, false); drawNow(); },
    fit: () => { show(0, app.ns, false); drawNow(); },
    rectOf: (g, l, s) => rectOf(app.groups[g], app.groups[g].lanes[l].first + s),
    markX: (g, m) => xOf(app.groups[g].marks[m].at),
    plot: () => ({ left: app.left, right: plotRight(), top: app.fixed, width: app.width, height: app.height }),
    colour: (kind) => app.colours[kind],
    depthOf: (g, l, s) => trackWith(app.groups[g].lanes[l], app.groups[g].lanes[l].first + s).depth,
    utilization: (g, bins) => Array.from({ length: bins }, (_, k) => utilization(app.groups[g], k / bins * app.groups[g].ns, (k + 1) / bins * app.groups[g].ns)),
    find, drawNow, frameMs: () => app.frameMs,
  };
}

async function start() {
  const began = performance.now();
  app.groups = [];
  for (const [index, described] of meta.groups.entries()) app.groups.push(await decodeGroup(described, index));
  app.ns = Math.max(...app.groups.map((group) => group.ns));
  readColours();
  fillFacts();
  fillLegend();
  measure();
  setUpZoom();
  show(0, app.ns, false);
  drawNow();
  window.teamster.drawMs = performance.now() - began;
  fillEvents();
  fillLanes();
  pick(null);
  setUpPointer();
  setUpKeys();
  setUpFind();
  setUpButtons();
  new ResizeObserver(() => { if (scroller.clientWidth !== app.width) resize(); }).observe(scroller);
  addEventListener('resize', resize);
  window.teamster.readyMs = performance.now();
}

function complain(error) {
  byId('problem').hidden = false;
  byId('problem').textContent = typeof DecompressionStream === 'undefined'
    ? 'This browser is too old for the picture: it needs one from 2023 or later.'
    : `The picture could not be drawn: ${error.message}`;
  throw error;
}

offer();
window.teamster.ready = start().catch(complain);
