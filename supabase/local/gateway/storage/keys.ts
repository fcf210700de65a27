import { invalidKey } from './errors.ts'

/** Characters of hosted's object keys. */
const KEY = /^[\w/!\-.*'() &$@=;:+,?]{1,1024}$/

/** Refuses what hosted refuses, and every name that a file system would read as a way out. */
export function checkKey(key: string): string {
  if (!KEY.test(key) || key.split('/').some((part) => part === '' || part === '.' || part === '..')) {
    throw invalidKey(key)
  }
  return key
}
