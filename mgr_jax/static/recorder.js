// The microphone, as a WAV file: browsers' own formats are not all read by the server.

export const canRecord = () =>
  Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);

// Starts to record; stop() of what it gives ends that, and gives the file.
export async function record() {
  // What makes speech clear would change music.
  const sound = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: sound });
  const context = new AudioContext();
  const blocks = [];
  try {
    await context.audioWorklet.addModule("/static/tap.js");
    const tap = new AudioWorkletNode(context, "tap");
    tap.port.onmessage = (event) => blocks.push(event.data);
    // A node that leads nowhere may be left out; this one plays nothing.
    context.createMediaStreamSource(stream).connect(tap).connect(context.destination);
  } catch (error) {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    throw error;
  }
  return {
    async stop() {
      stream.getTracks().forEach((track) => track.stop());
      await context.close();
      return wav(blocks, context.sampleRate);
    },
  };
}

// Float blocks to a mono WAV file of 16 bits.
function wav(blocks, rate_hz) {
  const count = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const word = (at, letters) =>
    [...letters].forEach((letter, k) => view.setUint8(at + k, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate_hz, true);
  view.setUint32(28, 2 * rate_hz, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const block of blocks) {
    for (const value of block) {
      view.setInt16(at, Math.max(-1, Math.min(1, value)) * 32767, true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}
