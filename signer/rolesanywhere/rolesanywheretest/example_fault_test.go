package rolesanywheretest_test

import (
	"fmt"
	"log"
	"strings"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

func ExampleServer_Inject() {
	s := rolesanywheretest.NewServer()
	defer s.Close()
	s.Inject(rolesanywheretest.Status503, rolesanywheretest.HTML)

	for range 3 {
		response, err := s.Client().Post(s.URL+"/sessions", "application/json", strings.NewReader("{}"))
		if err != nil {
			log.Fatal(err)
		}
		response.Body.Close()
		fmt.Printf("%s, %q\n", response.Status, response.Header.Get("x-amzn-ErrorType"))
	}
	fmt.Println(s.Requests()[2].Reason)
	// Output:
	// 503 Service Unavailable, "ServiceUnavailableException"
	// 200 OK, ""
	// 403 Forbidden, "MissingAuthenticationTokenException"
	// no Authorization header
}
