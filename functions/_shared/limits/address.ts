/**
 * The client's address as the platform's proxy wrote it, or null. Of a list the last one counts: what stands before it a
 * client may have sent itself.
 */
export function clientAddress(headers: Headers, name: string): string | null {
  const address = headers.get(name)?.split(',').at(-1)?.trim()
  return address && bitsOf(address) ? address : null
}

/** Tells whether an address is one of a list of addresses and networks (`203.0.113.7, 2001:db8::/32`). */
export function addressList(list: string): (address: string | null) => boolean {
  const networks = list
    .split(',')
    .map((entry) => entry.trim())
    .filter(Boolean)
    .map((entry) => {
      const [address = '', length] = entry.split('/')
      const bits = bitsOf(address)
      const prefix = length === undefined ? bits?.length : Number(length)
      if (!bits || prefix === undefined || !(prefix >= 0 && prefix <= bits.length))
        throw new Error(`No address: ${entry}`)
      return { size: bits.length, prefix: bits.slice(0, prefix) }
    })
  return (address) => {
    const bits = address === null ? null : bitsOf(address)
    return !!bits && networks.some(({ size, prefix }) => bits.length === size && bits.startsWith(prefix))
  }
}

/** The 32 or 128 bits of an address as text; null for what is none. An IPv4 address within IPv6 is the former. */
function bitsOf(address: string): string | null {
  const mapped = address.toLowerCase().match(/^::ffff:(\d+\.\d+\.\d+\.\d+)$/)?.[1]
  const text = mapped ?? address
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(text)) {
    const bytes = text.split('.').map(Number)
    return bytes.every((byte) => byte <= 255) ? bytes.map((byte) => byte.toString(2).padStart(8, '0')).join('') : null
  }
  if (!/^[0-9a-f:]{2,39}$/i.test(text)) return null
  const halves = text.split('::')
  const [head, tail = []] = halves.map((half) => half.split(':').filter(Boolean)) as [string[], string[]?]
  const missing = 8 - head.length - tail.length
  if (halves.length > 2 || (halves.length === 2 ? missing < 1 : missing !== 0)) return null
  const groups = [...head, ...Array(halves.length === 2 ? missing : 0).fill('0'), ...tail]
  if (groups.some((group) => group.length > 4)) return null
  return groups.map((group) => Number.parseInt(group, 16).toString(2).padStart(16, '0')).join('')
}
