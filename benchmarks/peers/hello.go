// hello PORT: net/http answers every request with "Hello, world!".
package main

import (
	"log"
	"net/http"
	"os"
)

func main() {
	body := []byte("Hello, world!")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Write(body)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
