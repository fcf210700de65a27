/** The picture of a card whose character has none that a card can use: the default avatar, a PNG of 128 × 128. */
const base64 =
  'iVBORw0KGgoAAAANSUhEUgAAAIAAAACACAMAAAD04JH5AAAABlBMVEXY3OZ7hJrziguVAAAAzElEQVR42u3ZsRHCMAAEQbb/pkkJiBjwifFfA9rM1uvx' +
  'WGuttdZaa63/zWvt6dcbvC8+/jICrYBWQCugFdAKaAXEghpALKgBxILbA4gFAwwwwAADDLDPcQ/YT+kuJgfcDfvbcb8P9AtJvxH1K1m/E/ZL6QFb8QFr' +
  '+VprrZWXfo6Pfrc84dXugKvhAfvEDwikAp9Un/89gc+rz/+KgFZAK6AV0ApoBbQCYkENoBUQC2oAsaAGEAtqALGgBhALbg8gFtweQCwYYIAB7gV4AoZH' +
  'EzHtfdd/AAAAAElFTkSuQmCC'

export const defaultPicture = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
