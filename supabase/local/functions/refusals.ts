/** An answer of the platform itself, in hosted's shape: `{code, message}`, the code also in a header. */
export function refuse(status: number, code: string, message: string): Response {
  return Response.json({ code, message }, { status, headers: { 'sb-error-code': code } })
}
