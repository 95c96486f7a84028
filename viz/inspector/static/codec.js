// Arrays arrive as "type:base64", where type is a letter and a number of bytes.

const ARRAYS = {
  u1: Uint8Array,
  u2: Uint16Array,
  u4: Uint32Array,
  i1: Int8Array,
  i2: Int16Array,
  i4: Int32Array,
  f2: Uint16Array,
  f4: Float32Array,
};
const ATTENTION_SCALE = 2 ** 14; // stored attention is a multiple of its inverse

function unpack(text) {
  const colon = text.indexOf(":");
  const bytes = Uint8Array.from(atob(text.slice(colon + 1)), (c) => c.charCodeAt(0));
  return new ARRAYS[text.slice(0, colon)](bytes.buffer);
}

// Attention in half precision, as numbers. It is never negative, so the sign bit is not looked at.
function unpackAttention(text) {
  return Float32Array.from(unpack(text), (bits) => HALVES[bits & 0x7fff]);
}

const HALVES = Float32Array.from({ length: 0x8000 }, (_, bits) => {
  const exponent = bits >> 10;
  const fraction = (bits & 1023) / 1024;
  const value = exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction;
  return value / ATTENTION_SCALE;
});
