/** RFC 6901 as a URI fragment. Keys come from the client: they are cut, and made well-formed before they are encoded. */
export function pointer(path: PropertyKey[]): string {
  const parts = path.map((part) => {
    const key = String(part).slice(0, 100).toWellFormed()
    return encodeURIComponent(key.replaceAll('~', '~0').replaceAll('/', '~1'))
  })
  return ['#', ...parts].join('/')
}
