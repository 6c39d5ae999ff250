// Command holdfast-pkcs11 loads a PKCS#11 module on behalf of holdfast, which
// starts it, speaks to it over two pipes (package wire) and kills it when the
// module hangs. It keeps nothing on disk, leaves no core file and ends with
// holdfast.
package main
