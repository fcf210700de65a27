/** Parlor's version, as `health` reports it. A test compares it with package.json, which is not part of a deployment. */
export const version = '0.1.0'
