// The picture of a recording over time: its outline, the likeliest genre, and all of them.
// It is a slider: a click, a drag or the arrow keys choose a position.

const WAVE = 72; // heights in CSS pixels, from the top; page.css has their sum
const LEADER = 24;
const BAND = 84;
const GAP = 4;
const AXIS = 18;

// Okabe and Ito's colours, which colour-blind eyes tell apart. From the ninth genre on,
// they come again with stripes.
const COLOURS = [
  "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999",
];
const STRIPES = ["", "45deg", "-45deg", "90deg"];
const STRIPE_INK = "rgb(0 0 0 / 55%)";

export const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

export function time(seconds) {
  const whole = Math.floor(seconds + 1e-6);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

// Places of a list's numbers, the largest number first.
export const ranked = (shares) =>
  shares.map((_, k) => k).sort((a, b) => shares[b] - shares[a]);

const look = (number) => ({
  colour: COLOURS[number % COLOURS.length],
  stripes: STRIPES[Math.floor(number / COLOURS.length) % STRIPES.length],
});

// A genre's look as a CSS background.
export function css(number) {
  const { colour, stripes } = look(number);
  if (!stripes) return colour;
  const lines = `${STRIPE_INK} 0 2px, transparent 2px 6px`;
  return `repeating-linear-gradient(${stripes}, ${lines}), ${colour}`;
}

// Where each window's stretch of the picture ends: halfway to the next one's middle.
export function stretches({ times_s, window_s, duration_s }) {
  const ends = times_s.slice(1).map((next, w) => (times_s[w] + next + window_s) / 2);
  return [...ends, duration_s];
}

// The window that a moment belongs to.
export function windowAt(found, at_s) {
  const place = stretches(found).findIndex((end) => at_s < end);
  return place < 0 ? found.times_s.length - 1 : place;
}

// A moment's likeliest genres, in words.
export function text(found, at_s, most) {
  const row = found.probabilities[windowAt(found, at_s)];
  const places = ranked(row).slice(0, most).filter((k, n) => !n || row[k] >= 0.005);
  return places.map((k) => `${found.labels[k]} ${percent(row[k])}`).join(", ");
}

export class Timeline {
  // element: holds a canvas and a .marker. found: the server's answer, and the looks of its
  // labels.
  constructor(element, found, { label, onSeek, onToggle }) {
    Object.assign(this, { element, found, at_s: 0 });
    this.canvas = element.querySelector("canvas");
    this.marker = element.querySelector(".marker");
    element.setAttribute("aria-label", label);
    element.setAttribute("aria-valuemax", found.duration_s.toFixed(1));
    this.steer(onSeek, onToggle);
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(element);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.redraw = () => this.draw();
    this.dark.addEventListener("change", this.redraw);
  }

  end() {
    this.sizes.disconnect();
    this.dark.removeEventListener("change", this.redraw);
  }

  steer(onSeek, onToggle) {
    const { element, found } = this;
    const seek = (at_s) => onSeek(Math.min(Math.max(at_s, 0), found.duration_s));
    const point = (event) => {
      const box = element.getBoundingClientRect();
      seek(((event.clientX - box.left) / box.width) * found.duration_s);
    };
    element.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      element.setPointerCapture(event.pointerId);
      point(event);
    });
    element.addEventListener("pointermove", (event) => {
      if (element.hasPointerCapture(event.pointerId)) point(event);
    });
    const keys = {
      ArrowLeft: () => seek(this.at_s - 5),
      ArrowDown: () => seek(this.at_s - 5),
      ArrowRight: () => seek(this.at_s + 5),
      ArrowUp: () => seek(this.at_s + 5),
      PageDown: () => seek(this.at_s - 30),
      PageUp: () => seek(this.at_s + 30),
      Home: () => seek(0),
      End: () => seek(found.duration_s),
      " ": onToggle,
      Enter: onToggle,
    };
    element.addEventListener("keydown", (event) => {
      const act = keys[event.key];
      if (!act || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      act();
    });
  }

  // Puts the marker at a moment.
  show(at_s) {
    const { element, found } = this;
    this.at_s = at_s;
    const share = Math.min(at_s / found.duration_s, 1);
    this.marker.style.left = `${100 * share}%`;
    element.setAttribute("aria-valuenow", at_s.toFixed(1));
    element.setAttribute(
      "aria-valuetext",
      `${time(at_s)} of ${time(found.duration_s)}: ${text(found, at_s, 2)}`,
    );
  }

  draw() {
    const { canvas, found } = this;
    const width = canvas.clientWidth;
    if (!width) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(canvas.clientHeight * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const style = getComputedStyle(canvas);
    const ink = (name) => style.getPropertyValue(`--${name}`).trim();
    const x = (at_s) => (at_s / found.duration_s) * width;
    drawWave(pen, found.peaks, x, width, ink);
    drawLeaders(pen, found, x);
    drawBand(pen, found, x, ink);
    drawAxis(pen, found.duration_s, x, width, ink);
  }
}

function drawWave(pen, { part_s, low, high }, x, width, ink) {
  const middle = WAVE / 2;
  const loudest = Math.max(1e-3, ...high, ...low.map((value) => -value));
  const y = (value) => middle - (value / loudest) * (middle - 1);
  pen.fillStyle = ink("wave");
  high.forEach((top, k) => {
    const left = x(k * part_s);
    const wide = Math.max(Math.min(x((k + 1) * part_s), width) - left, 0.5);
    const from = y(top);
    pen.fillRect(left, from, wide, Math.max(y(low[k]) - from, 1));
  });
}

// Runs of windows with one likeliest genre, which is written there where it fits.
function drawLeaders(pen, found, x) {
  const ends = stretches(found);
  const leaders = found.probabilities.map((row) => ranked(row)[0]);
  const top = WAVE + GAP;
  let from_s = 0;
  leaders.forEach((k, w) => {
    if (leaders[w + 1] === k) return;
    const left = x(from_s);
    const wide = x(ends[w]) - left;
    from_s = ends[w];
    fill(pen, found.looks[k], left, top, Math.max(wide - 1, 1), LEADER);
    const words = found.labels[k];
    if (pen.measureText(words).width + 10 > wide) return;
    const { colour, stripes } = look(found.looks[k]);
    if (stripes) {
      pen.fillStyle = colour;
      pen.fillRect(left + 2, top + 3, pen.measureText(words).width + 6, LEADER - 6);
    }
    pen.fillStyle = colour === "#0072b2" ? "#fff" : "#000";
    pen.fillText(words, left + 5, top + LEADER / 2 + 1);
  });
}

// All genres, stacked to 100 %, the likeliest of the recording at the bottom.
function drawBand(pen, found, x, ink) {
  const top = WAVE + GAP + LEADER + GAP;
  const order = ranked(found.labels.map((label) => found.overall[label]));
  let from_s = 0;
  stretches(found).forEach((end, w) => {
    const left = x(from_s);
    const wide = x(end) - left;
    let y = top + BAND;
    for (const k of order) {
      const high = found.probabilities[w][k] * BAND;
      y -= high;
      if (high < 0.25) continue;
      fill(pen, found.looks[k], left, y, wide + 0.3, high);
      // A line between two colours tells them apart where the colours do not.
      pen.fillStyle = ink("card");
      if (high > 3) pen.fillRect(left, y, wide + 0.3, 1);
    }
    from_s = end;
  });
  pen.strokeStyle = ink("soft");
  pen.lineWidth = 1;
  pen.strokeRect(0.5, top + 0.5, x(found.duration_s) - 1, BAND - 1);
}

function drawAxis(pen, duration_s, x, width, ink) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  const room = Math.max(width / 70, 1);
  const step = steps.find((s) => duration_s / s <= room) ?? 7200;
  const y = WAVE + GAP + LEADER + GAP + BAND;
  pen.fillStyle = ink("soft");
  for (let at_s = 0; at_s <= duration_s; at_s += step) {
    const words = time(at_s);
    const wide = pen.measureText(words).width;
    pen.fillRect(Math.min(x(at_s), width - 1), y, 1, 4);
    pen.fillText(words, Math.min(Math.max(x(at_s) - wide / 2, 0), width - wide), y + 12);
  }
}

function fill(pen, number, left, top, wide, high) {
  const { colour, stripes } = look(number);
  pen.fillStyle = colour;
  pen.fillRect(left, top, wide, high);
  if (!stripes) return;
  pen.fillStyle = striped(pen, stripes);
  pen.fillRect(left, top, wide, high);
}

const patterns = new Map();

function striped(pen, direction) {
  if (!patterns.has(direction)) {
    const tile = new OffscreenCanvas(6, 6);
    const draw = tile.getContext("2d");
    draw.strokeStyle = STRIPE_INK;
    draw.lineWidth = 1.6;
    for (const shift of [-6, 0, 6]) {
      const [x0, y0, x1, y1] = {
        "45deg": [shift, 6, shift + 6, 0],
        "-45deg": [shift, 0, shift + 6, 6],
        "90deg": [3, 0, 3, 6],
      }[direction];
      draw.moveTo(x0, y0);
      draw.lineTo(x1, y1);
    }
    draw.stroke();
    patterns.set(direction, pen.createPattern(tile, "repeat"));
  }
  return patterns.get(direction);
}
